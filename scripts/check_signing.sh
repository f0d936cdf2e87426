#!/usr/bin/env bash
# Check that signatures hold in both directions: ours with Python's `model_signing`, and its with ours.
#
#     pip install model-signing pyopenssl
#     scripts/check_signing.sh MODEL_DIR [PYTHON_BIN_DIR]      # BLACKLETTER names another program than target/release/blackletter
set -euo pipefail
model=$1
bin=${2:-$(dirname "$(command -v model_signing)")}
blackletter=${BLACKLETTER:-$(dirname "$0")/../target/release/blackletter}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -rL "$model" "$work/model"
rm -f "$work/model/model.sig"
for curve in prime256v1 secp384r1 secp521r1; do
    openssl ecparam -genkey -name $curve -noout -out "$work/key.pem"
    openssl ec -in "$work/key.pem" -pubout -out "$work/key.pub" 2>/dev/null
    "$blackletter" sign "$work/model" --key "$work/key.pem"
    "$bin/model_signing" verify key "$work/model" --signature "$work/model/model.sig" --public_key "$work/key.pub"
    "$bin/model_signing" sign key "$work/model" --signature "$work/model/model.sig" --private_key "$work/key.pem"
    "$blackletter" verify "$work/model" --key "$work/key.pub" > /dev/null
    cp "$work/model/config.json" "$work/config.json"
    printf ' ' >> "$work/model/config.json"
    if "$blackletter" verify "$work/model" --key "$work/key.pub" 2> "$work/error"; then
        echo "a changed file was not found" >&2
        exit 1
    fi
    grep -q 'config.json was changed' "$work/error"
    cp "$work/config.json" "$work/model/config.json"
    rm "$work/model/model.sig"
    echo "$curve: both directions hold"
done
