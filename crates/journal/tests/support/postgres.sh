# Makes a PostgreSQL cluster of somebody's own, runs it while standard input is open, then takes everything away: also when whoever
# started it was killed. BIN: the server's programs, DIR: an empty directory, PORT: a free port of loopback. With a certificate in
# DIR it speaks TLS. `-m immediate`: nothing in it is wanted any more.
# A signal to the whole group (Ctrl-C, `timeout`) must not leave a server behind: the closed input ends it.
trap "" HUP INT TERM
set -eu
"$BIN/initdb" -D "$DIR/data" -U topside -A trust -E UTF8 --locale=C --no-sync >"$DIR/log" 2>&1
printf 'host all secret 127.0.0.1/32 scram-sha-256\nlocal all all trust\nhost all all 127.0.0.1/32 trust\n' >"$DIR/data/pg_hba.conf"
cat >>"$DIR/data/postgresql.conf" <<EOT
listen_addresses = '127.0.0.1'
port = $PORT
unix_socket_directories = '$DIR'
max_connections = 400
EOT
if [ -f "$DIR/server.pem" ]; then
    cat >>"$DIR/data/postgresql.conf" <<EOT
ssl = on
ssl_cert_file = '$DIR/server.pem'
ssl_key_file = '$DIR/server.key'
EOT
fi
"$BIN/pg_ctl" -D "$DIR/data" -l "$DIR/log" -w -t 60 start >/dev/null
echo started
cat >/dev/null || true
"$BIN/pg_ctl" -D "$DIR/data" -m immediate -w stop >/dev/null || true
rm -rf "$DIR"
