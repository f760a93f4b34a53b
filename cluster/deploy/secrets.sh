#!/usr/bin/env bash
# Make the passwords and the token of the compose file, each in a file that only you can read:
#   cluster/deploy/secrets.sh
# What is there already stays as it is.
set -euo pipefail
umask 077

cd "$(dirname "$0")"
mkdir -p secrets

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

# write FILE: standard input becomes secrets/FILE, unless there is one
write() {
    if [ -e "secrets/$1" ]; then
        cat >/dev/null
    else
        cat >"secrets/$1"
    fi
}

random | write ray_token
random | write postgres_password
random | write s3_password
random | write mlflow_password
random | write mlflow_secret_key

write pgpass <<EOF
postgres:5432:*:mlflow:$(cat secrets/postgres_password)
EOF
write s3_credentials <<EOF
[default]
aws_access_key_id = nfbmr
aws_secret_access_key = $(cat secrets/s3_password)
EOF
write mlflow_credentials <<EOF
[mlflow]
mlflow_tracking_username = admin
mlflow_tracking_password = $(cat secrets/mlflow_password)
EOF

# Containers run as you, so that they can read them.
if [ ! -e .env ]; then
    printf 'NFBMR_UID=%s\nNFBMR_GID=%s\n' "$(id -u)" "$(id -g)" >.env
fi
printf 'secrets are in %s/secrets\n' "$PWD" >&2
