#!/bin/bash
# init.sh PORT PYTHON: on the root that boot.sh made. Installs swapper as its unit expects it, and becomes a systemd
# that knows no unit but swapper's, as shipped, and empty stand-ins for those that it names.
set -euo pipefail
port=$1 python=$2

mkdir -p /units/swapper.socket.d /units/swapper.service.d /opt/swapper/bin /etc/swapper
for name in basic sysinit sockets shutdown umount final network-online; do
  printf '[Unit]\nDefaultDependencies=no\n' >"/units/$name.target"
done
printf '[Unit]\nDefaultDependencies=no\nWants=swapper.socket swapper.service\n' >/units/test.target
cp /opt/project/swapper/units/system/swapper.{service,socket} /units
cat >/units/swapper.socket.d/test.conf <<UNIT
[Socket]
ListenStream=
ListenStream=127.0.0.1:$port
UNIT
cat >/units/swapper.service.d/test.conf <<'UNIT'
[Unit]
StartLimitIntervalSec=0
[Service]
WatchdogSec=3
RestartSec=0.1
StandardOutput=append:/var/log/swapper.log
StandardError=append:/var/log/swapper.log
UNIT

cat >/opt/swapper/bin/swapper <<PROGRAM
#!/bin/sh
exec env LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/project:/opt/site PYTHONDONTWRITEBYTECODE=1 \\
  /opt/python/bin/$python -m swapper.cli "\$@"
PROGRAM
chmod 755 /opt/swapper/bin/swapper
cat >/etc/swapper/config.yaml

exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/units \
  SYSTEMD_LOG_TARGET=console /lib/systemd/systemd --system --unit=test.target
