#!/bin/busybox sh
# The first process of the guest machine: makes a root that can be pivoted away from, and goes on in it. The second time it is
# that root's: it runs each line of /tests/list and says on the second serial line, which nothing that is tested can reach and
# whose word it does not know, how it ended. The first serial line is for people.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ CI=true RUST_BACKTRACE=0
# Nothing here runs at the speed of the machine underneath.
export TOPSIDE_HOSTILE_CYCLES=24 TOPSIDE_HOSTILE_RACES=120 TOPSIDE_CASE_SECONDS_MAX=300
b=/bin/busybox
if [ ! -e /second ]; then
    $b mkdir -p /proc /new
    $b mount -t tmpfs -o size=1200m,mode=755 root /new
    $b cp -a /image/. /new/
    $b rm -rf /image
    $b touch /new/second
    exec $b switch_root /new /init
fi
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devices /dev
$b mkdir -p /dev/pts /dev/shm /opt
$b mount -t devpts -o ptmxmode=666 terminals /dev/pts
$b mount -t tmpfs -o mode=1777 shared /dev/shm
$b mount -t tmpfs -o size=700m,mode=1777 temporary /tmp
$b mount -t cgroup2 groups /sys/fs/cgroup
$b insmod /loop.ko
$b ip link set lo up
echo 0 > /proc/sys/kernel/yama/ptrace_scope
echo 0 > /proc/sys/kernel/printk
word=$($b cat /word)
$b rm /word
while read -r name program arguments; do
    echo "== $name"
    # shellcheck disable=SC2086
    $b timeout -s KILL 420 "/tests/$program" $arguments < /dev/null
    echo "$word $name $?" > /dev/ttyS1
done < /tests/list
echo "$word end 0" > /dev/ttyS1
$b poweroff -f
