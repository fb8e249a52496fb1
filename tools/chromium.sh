#!/bin/sh
# Chromium for the browser tests: say so if it is there, install it where that is ours to do, else say how.
set -eu

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null 2>&1; then
        exit 0
    fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo 'Installing chromium with apt-get.'
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium
else
    echo 'The browser tests need Chromium or Google Chrome; on Debian and Ubuntu: sudo apt-get install chromium' >&2
    exit 1
fi
