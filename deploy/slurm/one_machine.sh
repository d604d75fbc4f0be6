#!/usr/bin/env bash
# A real SLURM of two nodes on one Debian machine, for tests: no systemd, no database, loopback only.
#   one_machine.sh up ROOT     start it (again: starts only what does not run) and print SLURM_CONF
#   one_machine.sh down ROOT   end it, by its own pid files
# Run as root; needs the packages slurm-wlm and munge. ROOT is a short path of its own.
set -euo pipefail

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -eq 2 ] || usage
root="$2"
if [ "${root#/}" = "$root" ] || [ ${#root} -gt 60 ]; then
  echo "ROOT must be absolute and short" >&2
  exit 2
fi
conf="$root/slurm.conf"
base="${SLURM_PORT:-17900}"

# A daemon that died can linger as a zombie without a command line: so the line is looked at.
running() {
  local pid
  pid="$(cat "$1" 2>/dev/null)" || return 1
  [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "$2"
}

wait_until() {
  local tries="$1"
  shift
  while ! "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "waited too long for: $*" >&2; return 1; }
    sleep 0.2
  done
}

write_conf() {
  cat >"$conf" <<CONF
ClusterName=dev
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$base
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$root/munge/munge.socket,cred_expire=10
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/run/spool-%n
SlurmctldPidFile=$root/run/slurmctld.pid
SlurmdPidFile=$root/run/slurmd-%n.pid
SlurmctldLogFile=$root/log/slurmctld.log
SlurmdLogFile=$root/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory,CR_LLN
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc=$root/log/jobcomp.txt
MailProg=/bin/true
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
KillWait=5
DefMemPerCPU=1000
NodeName=n[1-2] NodeHostName=localhost NodeAddr=127.0.0.1 Port=[$((base + 1))-$((base + 2))] CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES DefaultTime=00:10:00 MaxTime=1-00:00:00 State=UP
CONF
}

start_munge() {
  running "$root/munge/munged.pid" munged && return
  [ -s "$root/munge/munge.key" ] || head -c 1024 /dev/urandom >"$root/munge/munge.key"
  chmod 600 "$root/munge/munge.key"
  munged --force --key-file="$root/munge/munge.key" --socket="$root/munge/munge.socket" \
    --pid-file="$root/munge/munged.pid" --log-file="$root/munge/munged.log" \
    --seed-file="$root/munge/munged.seed"
  wait_until 50 test -S "$root/munge/munge.socket"
}

up() {
  for command in munged slurmctld slurmd sbatch; do
    command -v "$command" >/dev/null || { echo "no $command: apt-get install slurm-wlm munge" >&2; exit 3; }
  done
  mkdir -p "$root"/{munge,state,run,log}
  chmod 711 "$root/munge"
  [ -s "$conf" ] || write_conf
  start_munge
  running "$root/run/slurmctld.pid" slurmctld || slurmctld -f "$conf"
  for node in n1 n2; do
    mkdir -p "$root/run/spool-$node"
    running "$root/run/slurmd-$node.pid" slurmd || slurmd -N "$node" -f "$conf"
  done
  export SLURM_CONF="$conf"
  # shellcheck disable=SC2016  # for the shell that is started
  wait_until 150 sh -c '[ "$(sinfo -h -N -o %t | grep -cE "^(idle|mix|alloc)$")" -eq 2 ]'
  echo "$conf"
}

down() {
  local entry
  if [ -s "$conf" ] && running "$root/run/slurmctld.pid" slurmctld; then
    SLURM_CONF="$conf" timeout 10 scancel --user=root >/dev/null 2>&1 || true
    # shellcheck disable=SC2016
    SLURM_CONF="$conf" wait_until 50 sh -c '[ -z "$(squeue -h)" ]' || true
  fi
  for entry in run/slurmd-n1:slurmd run/slurmd-n2:slurmd run/slurmctld:slurmctld munge/munged:munged; do
    local file="$root/${entry%%:*}.pid"
    running "$file" "${entry##*:}" || continue
    kill "$(cat "$file")"
    # daemons remove their pid files as they end
    for _ in $(seq 50); do running "$file" "${entry##*:}" || break; sleep 0.2; done
  done
}

case "$1" in
  up) up ;;
  down) down ;;
  *) usage ;;
esac
