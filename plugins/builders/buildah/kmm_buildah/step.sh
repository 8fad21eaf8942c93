# What each container of a build runs: `pull [FLAG…] -- IMAGE…`, `index [FLAG…] -- IMAGE [ARCHITECTURE IMAGE]…`, or what
# else buildah is to do, argument by argument.
# The containers share /kmm/storage (`index` needs nothing of it); each has a $HOME of its own. Kubernetes replaces a
# dollar before a parenthesis or before another dollar in what a container runs: neither is used here.
set -eu

shared=/kmm/storage
unpulled=/kmm/pulled/unpulled
verb=$1

own() {
  buildah --root "$shared/root" --runroot "$shared/run" --storage-driver "$driver" \
    --registries-conf "$HOME/registries.conf" "$@"
}

# Whether a registry has said that there is no such image: in the specification's words, or in those that some have.
is_missing() {
  while read -r line || [ -n "$line" ]; do
    case "$line" in
    *"manifest unknown"* | *"name unknown"* | *"artifact "*" not found"* | *"was deleted or has expired"*) return 0 ;;
    *"StatusCode: 404"* | *"404 (Not Found)"*) return 0 ;;
    esac
  done <"$HOME/why"
  return 1
}

is_refused() {
  while read -r line || [ -n "$line" ]; do
    case "$line" in
    *unauthorized* | *"authentication required"* | *denied* | *forbidden* | *Forbidden*) return 0 ;;
    esac
  done <"$HOME/why"
  return 1
}

# Runs what talks to a registry, up to three times: not where it says no, since another try could lock an account.
patiently() {
  for pause in 2 10 none; do
    code=0
    "$@" >"$HOME/why" 2>&1 || code=$?
    cat "$HOME/why" >&2
    if [ "$code" = 0 ] || [ "$pause" = none ] || is_missing || is_refused; then
      return "$code"
    fi
    sleep "$pause"
  done
}

# A cluster that does not know `hostUsers: false` drops it, and root would be the node's.
if [ -n "${OWN_USERS_ONLY-}" ]; then
  read -r _ outside _ </proc/self/uid_map
  if [ "$outside" = 0 ]; then
    echo "this cluster has ignored hostUsers: false, so that the build would be root on the node: not started" >&2
    exit 1
  fi
fi

printf '%s\n' "$REGISTRIES" >"$HOME/registries.conf"
mkdir -p "$HOME/context" "$HOME/.config"

if [ -e /kmm/credentials/.dockerconfigjson ]; then
  export REGISTRY_AUTH_FILE=/kmm/credentials/.dockerconfigjson
elif [ -e /kmm/credentials/.dockercfg ]; then
  export REGISTRY_AUTH_FILE="$HOME/auth.json"
  (umask 077 && { printf '{"auths":' && cat /kmm/credentials/.dockercfg && printf '}'; } >"$REGISTRY_AUTH_FILE")
fi

if [ "$verb" = index ]; then
  # It keeps names and no layers, and reads nothing that a build has written.
  shared=$HOME
  driver=vfs
elif [ -e "$shared/driver" ]; then
  read -r driver <"$shared/driver" || true
  case "$driver" in
  overlay | vfs) ;;
  *)
    echo "what the container before has written is no storage driver" >&2
    exit 1
    ;;
  esac
else
  driver=overlay
  if ! own info >"$HOME/why" 2>&1; then
    driver=vfs
    if ! own info >"$HOME/why" 2>&1; then
      cat "$HOME/why" >&2
      echo "buildah cannot work on this node. Without privileges it needs user namespaces (the node's" \
        "user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns); else an administrator has to set" \
        "the option privileged of the plugin buildah" >&2
      exit 1
    fi
    echo "the storage driver overlay cannot be used on this node: vfs it is, which is slower" >&2
  fi
  echo "$driver" >"$shared/driver"
fi

flags=
case "$verb" in
pull | index)
  shift
  while [ "$1" != -- ]; do
    flags="$flags $1"
    shift
  done
  shift
  ;;
esac

# shellcheck disable=SC2086 # the flags are words of ours
case "$verb" in
pull)
  # Not the end: the Dockerfile may not need it, or get it without credentials. If it does, the build says why.
  for image in "$@"; do
    if ! own pull $flags "$image" 2>"$HOME/why"; then
      printf 'with imageRepoSecret: ' >>"$unpulled"
      tail -n 1 "$HOME/why" >>"$unpulled"
    fi
    cat "$HOME/why" >&2
  done
  exit
  ;;
index)
  whole=$1
  shift
  own manifest create localhost/kmm-index >/dev/null
  while [ "$#" -gt 0 ]; do
    code=0
    patiently own manifest add $flags --os=linux "--arch=$1" localhost/kmm-index "docker://$2" || code=$?
    if [ "$code" != 0 ] && is_missing; then
      echo "the image for $1 is not there yet: who pushes the last one makes the index" >&2
      exit 0
    fi
    [ "$code" = 0 ] || exit "$code"
    shift 2
  done
  patiently own manifest push --all $flags localhost/kmm-index "docker://$whole"
  exit
  ;;
push)
  # Some registries lose what two push at once, as the builds for two architectures do.
  patiently own "$@"
  exit
  ;;
esac

own "$@" && exit
code=$?
if [ "$verb" = build ] && [ -e "$unpulled" ]; then
  cat "$unpulled" >&2
fi
exit "$code"
