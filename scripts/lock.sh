#!/bin/sh
# Writes requirements/*.lock anew: newest versions that fit, for every platform, with hashes and without index addresses.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-uv}
compile() {
    target=$1
    shift
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        "$@" --output-file "requirements/$target.lock"
}
packages_of() { # prints the packages of an extra
    sed -n "/^$1 = \[/,/^\]/s/^ *\"\([^\"]*\)\".*/\1/p" pyproject.toml
}
compile build requirements/build.in "${@}"
compile base pyproject.toml --extra local --no-emit-package llama-cpp-python "${@}"
compile deploy pyproject.toml --extra local --extra postgresql --extra qdrant --extra tracing --extra hub --no-emit-package llama-cpp-python "${@}"
for extra in audio transcription voices realtime; do packages_of "$extra"; done | "$uv" pip compile --quiet --universal --python-version 3.11 \
    --generate-hashes --no-header --no-annotate --constraints requirements/deploy.lock "${@}" --output-file requirements/audio.lock -
packages_of draw | grep stable | "$uv" pip compile --quiet --no-deps --generate-hashes --no-header --no-annotate \
    --output-file requirements/draw.lock -
compile dev pyproject.toml --extra local --extra audio --extra transcription --extra voices --extra realtime --extra postgresql --extra qdrant --extra tracing --extra contract --extra convert --extra hub --extra dev --no-emit-package llama-cpp-python "${@}"
compile bench pyproject.toml --extra local --extra bench --no-emit-package llama-cpp-python "${@}"
llama=$(sed -n 's/^ *"\(llama-cpp-python==[^"]*\)".*/\1/p' pyproject.toml)
printf '%s\n' "$llama" | "$uv" pip compile --quiet --no-deps --generate-hashes --no-header --no-annotate \
    --output-file requirements/llama.lock -
compile peers requirements/peers.in "${@}"
compile release requirements/release.in "${@}"
compile clients requirements/clients.in "${@}"
compile clients2 requirements/clients2.in "${@}"
