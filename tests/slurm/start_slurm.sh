#!/usr/bin/env bash
# A real Slurm on this machine for the tests: munged, slurmctld and several slurmd on 127.0.0.1, as
# root, without systemd, cgroups or a database. Everything lives in SLURM_CI_DIR.
#
#   tests/slurm/start_slurm.sh start    write the configuration, start, wait until nodes are idle
#   tests/slurm/start_slurm.sh stop     end exactly the daemons started here (by pid file)
set -euo pipefail
umask 022

DIR=${SLURM_CI_DIR:-${TMPDIR:-/tmp}/slurm-ci}   # everything (config, state, logs, pids, munge key) lives here
NODES=${SLURM_CI_NODES:-3}                 # virtual nodes node1..nodeN
CPUS=${SLURM_CI_CPUS:-4}                   # CPUs claimed per virtual node (may exceed the host's)
MEM=${SLURM_CI_MEM:-8000}                  # MB claimed per virtual node (not enforced)
PARTITION=ci
HOST=$(hostname -s)
export SLURM_CONF=$DIR/etc/slurm.conf

write_conf() {
  mkdir -p "$DIR"/{etc,state,log,pid,munge}
  for i in $(seq "$NODES"); do mkdir -p "$DIR/spool/node$i"; done
  chmod 700 "$DIR/state"

  # `scontrol show hostnames` returns node1.. which MASTER_ADDR must resolve; also node names
  # must resolve for srun's own fan-out.  (Docker: /etc/hosts is a bind mount: no sed -i.)
  for i in $(seq "$NODES"); do
    grep -qE "[[:space:]]node$i([[:space:]]|\$)" /etc/hosts || echo "127.0.0.1 node$i" >> /etc/hosts
  done
  # With NoInAddrAny daemons and srun bind what the host's own name resolves to, which must be
  # exactly 127.0.0.1: stock Debian's 127.0.1.1 starts but breaks srun, and an eth0 address (Docker,
  # cloud hosts) never comes up.  So put a line first (written in place: no rename over a bind mount).
  if [ "$(getent ahostsv4 "$HOST" | awk 'NR==1{print $1}' || true)" != 127.0.0.1 ]; then
    { echo "127.0.0.1 $HOST"; cat /etc/hosts; } > "$DIR/etc/hosts.new"
    cat "$DIR/etc/hosts.new" > /etc/hosts
  fi

  local last=$((17000 + NODES))

  cat > "$SLURM_CONF" <<CONF
ClusterName=ci
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=16817
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
# own munge socket, so that a system munged is neither needed nor touched.
# cred_expire: after a requeue Slurm holds the job for this long + 1 s (default 120 s); short for CI.
AuthInfo=socket=$DIR/munge/munge.socket,cred_expire=5
# bind to the address the host name resolves to (127.0.0.1) instead of 0.0.0.0
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SrunPortRange=17100-17400
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/pid/slurmctld.pid
SlurmdPidFile=$DIR/pid/slurmd.%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
# nothing that needs cgroups or privileges
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.txt
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_interval=5
# take CPUs/RealMemory from this file even where the host has fewer
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
JobRequeue=1
KillWait=5
InactiveLimit=0
MinJobAge=600
SlurmctldTimeout=30
SlurmdTimeout=60
NodeName=node[1-$NODES] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[17001-$last] CPUs=$CPUS RealMemory=$MEM State=UNKNOWN
CONF
  echo "PartitionName=$PARTITION Nodes=ALL Default=YES MaxTime=INFINITE State=UP" >> "$SLURM_CONF"
}

start() {
  write_conf
  local t0; t0=$(date +%s.%N)
  # munged: private key and socket; refuses directories writable by others
  [ -s "$DIR/munge/munge.key" ] || (umask 077; head -c 128 /dev/urandom > "$DIR/munge/munge.key")
  chmod 755 "$DIR/munge"
  munged --key-file="$DIR/munge/munge.key" --socket="$DIR/munge/munge.socket" \
         --pid-file="$DIR/pid/munged.pid" --log-file="$DIR/log/munged.log" \
         --seed-file="$DIR/munge/munge.seed"
  slurmctld            # daemonises; reads $SLURM_CONF
  for i in $(seq "$NODES"); do slurmd -N "node$i"; done
  # ready when every node is idle ("idle*" = not heard from yet); give up after 30 s of wall clock
  local end=$((SECONDS + 30))
  while [ $SECONDS -lt $end ]; do
    if [ "$(timeout 5 sinfo -h -N -o '%N %t' 2>/dev/null | awk '$2=="idle"' | sort -u | wc -l)" = "$NODES" ]; then
      echo "slurm up: $NODES nodes idle after $(date +%s.%N | awk -v t="$t0" '{printf "%.1f", $1 - t}') s"
      return 0
    fi
    sleep 0.2
  done
  echo "slurm did not come up" >&2; timeout 5 sinfo -N -l >&2 || true; tail -n 20 "$DIR"/log/*.log >&2; return 1
}

stop() {
  # by pid file only: other jobs on this host may run daemons of the same name
  local f pid
  for f in "$DIR"/pid/slurmd.*.pid "$DIR"/pid/slurmctld.pid "$DIR"/pid/munged.pid; do
    [ -s "$f" ] || continue
    pid=$(tr -dc 0-9 < "$f")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true   # a slurmd that cannot reach its controller ignores TERM for long
  done
}

case "${1:-start}" in
  start) start ;;
  stop) stop ;;
  *) sed -n 2,6p "$0"; exit 2 ;;
esac
