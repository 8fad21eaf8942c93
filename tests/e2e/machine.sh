#!/bin/busybox sh
# The first process of a virtual machine of the tests: it does what machine.py says over a port.
/bin/busybox mkdir -p /proc /sys /dev /tmp /var/lib/firmware
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t securityfs securityfs /sys/kernel/security
modprobe virtio_pci && modprobe virtio_console
port=/dev/vport0p1
# Its file is there a moment before it can be opened. Who waits for us does not wait for ever.
until [ -c $port ] && command exec 3<>$port; do
	sleep 0.1
done
echo ready >&3
# A line says what to do with so many bytes behind it, and where. The answer: the exit code, how much was said, that.
while read -r verb size folder <&3; do
	head -c "$size" <&3 >/tmp/told
	case $verb in
	unpack) mkdir -p "$folder" && tar -x -f /tmp/told -C "$folder" ;;
	run) sh /tmp/told 3<&- </dev/null ;;
	esac >/tmp/said 2>&1
	code=$?
	echo "$code $(stat -c %s /tmp/said)" >&3
	cat /tmp/said >&3
done
poweroff -f
