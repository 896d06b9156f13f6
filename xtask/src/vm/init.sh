#!/bin/busybox sh
# The first process of the virtual machine: loads the modules, runs every test by itself, says how it went on the
# serial console in lines that begin with "@vm", and turns the machine off. Decides nothing.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
for applet in sh mount mkdir cat sed insmod uname timeout sleep poweroff; do
    busybox ln -s /bin/busybox "/bin/$applet"
done
mkdir -p /proc /sys /dev /run /tmp /etc
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
echo "@vm kernel $(uname -r)"

# Nobody waits for a machine whose owner is gone.
read -r seconds each </vm/limits
(sleep "$seconds"; poweroff -f) &

while read -r module; do
    insmod "/vm/modules/$module" || echo "@vm note module $module cannot be loaded"
done </vm/modules.list

count=0
while read -r name; do
    echo "@vm begin $name"
    timeout -s KILL "$each" /vm/test --exact "$name" --test-threads=1 --show-output >/tmp/output 2>&1 </dev/null
    status=$?
    sed -n "s/^expected difference: /@vm differs $name /p" /tmp/output
    if [ "$status" = 0 ] && busybox grep -q '^test result: ok. 1 passed' /tmp/output; then
        echo "@vm result $name ok"
    else
        sed 's/^/@vm output /' /tmp/output
        echo "@vm result $name failed $status"
    fi
    count=$((count + 1))
done </vm/tests.list
echo "@vm end $count"
poweroff -f
