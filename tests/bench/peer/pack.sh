#!/bin/sh
# Packs llama.cpp's libraries, with Vulkan, for a machine that reaches no registry:
#
#   tests/bench/peer/pack.sh FILE.tar.xz
#
# Unpacked in the project's folder there (tar xJf FILE.tar.xz) they lie where bench.ts looks. That
# machine needs Deno as the launcher installs it, libstdc++ and a Vulkan loader beside them.
set -eu
out=${1:?"wanted the archive's name"}
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "$(dirname "$0")/../../.."
folder=tests/bench/peer/llama
if [ ! -d "$folder/node_modules" ]; then
  (cd "$folder" && ../../../../kedge deno install --quiet --frozen)
fi
# Links followed: the packages lie behind them. The file's own times and owners do not matter.
tar --dereference --sort=name --owner=0 --group=0 --mtime=@0 \
  -c "$folder/node_modules/@node-llama-cpp/linux-x64-vulkan" | xz -9e >"$out"
ls -l "$out"
