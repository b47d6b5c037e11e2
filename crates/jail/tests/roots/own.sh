# Copies to $1 what every Debian has (required packages, apt, and what they depend on) out of the Debian that this machine is.
set -eu
to=$1
list=$to.list
mkdir -p "$to"
packages=$(dpkg-query -W -f '${db:Status-Abbrev}\t${Package}\t${Essential}\t${Priority}\t${Pre-Depends},${Depends}\t${Provides}\n' | awk -F'\t' '
    $1 !~ /^ii/ { next }
    { needs[$2] = $5 }
    $3 == "yes" || $4 == "required" || $2 == "apt" { wanted[$2] = 1 }
    { for (i = split($6, given, ","); i > 0; i--) { gsub(/ |\(.*\)/, "", given[i]); by[given[i]] = $2 } }
    END {
        do {
            added = 0
            for (name in wanted) {
                if (name in seen) continue
                seen[name] = 1; added = 1
                for (i = split(needs[name], all, /[,|]/); i > 0; i--) {
                    need = all[i]; gsub(/\(.*\)| |:any/, "", need)
                    if (!(need in needs)) need = by[need]
                    if (need in needs && need != "") wanted[need] = 1
                }
            }
        } while (added)
        for (name in wanted) print name
    }')
# Where /bin is a link, so are its fellows, and packages still name files by them.
merged='s,^,,'
[ -L /bin ] && merged='s,^/\(s\?bin\|lib[0-9x]*\)/,/usr/\1/,'
{
    dpkg-query -L $packages | grep -Ev '^/\.$|^/usr/share/(doc|man|info|locale|lintian)/'
    for kept in /var/lib/dpkg/alternatives/*; do sed -n 2p "$kept"; done
    find /etc/alternatives
    ls -d /bin /sbin /lib /lib64 2>/dev/null || true
} | sed "$merged" | sort -u > "$list"
tar -C / -c --no-recursion --ignore-failed-read -T "$list" 2> /dev/null | tar -C "$to" -x --numeric-owner
rm "$list"
mkdir -p "$to/var/lib/dpkg/info" "$to/var/lib/dpkg/updates" "$to/var/lib/dpkg/triggers" "$to/var/lib/apt/lists/partial" \
    "$to/var/cache/apt/archives/partial" "$to/proc" "$to/sys" "$to/dev" "$to/run" "$to/tmp" "$to/root"
chmod 1777 "$to/tmp"
dpkg-query -s $packages > "$to/var/lib/dpkg/status"
for name in $packages; do cp -a /var/lib/dpkg/info/"$name".* /var/lib/dpkg/info/"$name":* "$to/var/lib/dpkg/info" 2> /dev/null || true; done
cp /var/lib/dpkg/info/format "$to/var/lib/dpkg/info/"
for name in passwd group; do cp /usr/share/base-passwd/$name.master "$to/etc/$name"; done
echo 'root:*:19000:0:99999:7:::' > "$to/etc/shadow"
chmod 640 "$to/etc/shadow"
# It is whole, or whoever asked makes one in another way.
chroot "$to" /usr/bin/dpkg-query -W bash apt perl-base > /dev/null
chroot "$to" /bin/sh -c 'awk "BEGIN { exit 0 }" && perl -v' > /dev/null
