#!/usr/bin/env bash
# Builds raydistill.jar with javac and jar alone: build.sh [OUTPUT]
#
# JDK17 and JDK22 name the folders of two JDKs: 17, whose classes run on Java 17, and 22 or newer,
# whose classes run on Java 21 and newer. With one of them the jar is for its Javas alone.
set -euo pipefail
output=$(realpath -m "${1:-raydistill.jar}")
cd "$(dirname "$0")"
: "${JDK17:=}" "${JDK22:=}"
if [ -z "$JDK17$JDK22" ]; then
    echo "name a JDK 17 by JDK17, or a JDK of 22 or newer by JDK22, or both" >&2
    exit 2
fi
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
mkdir "$work/17" "$work/21"
if [ -n "$JDK17" ]; then
    "$JDK17/bin/javac" -g -d "$work/17" --add-modules jdk.incubator.foreign \
        src/17/raydistill/*.java src/common/raydistill/*.java
fi
if [ -n "$JDK22" ]; then
    # The classes of java.lang.foreign are the same in 21 as in 22. --source in place of --release,
    # which knows no preview classes of 21: the JDK's own classes are compiled against.
    "$JDK22/bin/javac" -g -Xlint:-options,-restricted -d "$work/21" --source 21 --target 21 \
        src/21/raydistill/*.java src/common/raydistill/*.java
fi
if [ -n "$JDK17" ] && [ -n "$JDK22" ]; then
    classes=("$work/17") newer=(--release 21 -C "$work/21" raydistill/Native.class
        -C "$work/21" "raydistill/Native\$Mapping.class")
else
    classes=("$work/${JDK17:+17}${JDK22:+21}") newer=()
fi
printf "Main-Class: raydistill.Score\nAutomatic-Module-Name: raydistill\nEnable-Native-Access: ALL-UNNAMED\n" \
    > "$work/manifest"
"${JDK22:-$JDK17}/bin/jar" --create --file "$output" --manifest "$work/manifest" \
    -C "${classes[0]}" . "${newer[@]}"
echo "$output"
