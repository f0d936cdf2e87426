#!/usr/bin/env bash
# Use the page at / in a real browser (test_page.mjs), with Chromium and playwright-core fetched where that is possible.
#
#     scripts/test_page.sh [SCREENSHOTS]
set -euo pipefail
cd "$(dirname "$0")/.."
skip() { echo "skipped: $*"; exit 0; }
command -v node > /dev/null || skip "the page needs node"
browser=${CHROMIUM:-$(command -v chromium || true)}
if [ -z "$browser" ] && [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    { apt-get update -qq && apt-get install -y -qq chromium; } > /dev/null 2>&1 || true
    browser=$(command -v chromium || true)
fi
[ -n "$browser" ] || skip "the page needs chromium"
dir=target/playwright
if [ ! -d "$dir/node_modules/playwright-core" ]; then
    mkdir -p "$dir"
    npm install --silent --no-fund --no-audit --prefix "$dir" playwright-core > /dev/null 2>&1 || skip "playwright-core cannot be fetched"
fi
PLAYWRIGHT=$dir CHROMIUM=$browser node scripts/test_page.mjs "$@"
