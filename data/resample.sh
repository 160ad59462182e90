#!/usr/bin/env bash
# Bring a folder of images to the size that a dataset trains at, into another folder, as PNG, with ImageMagick.
#
#   data/resample.sh cityscapes/leftImg8bit/train cityscapes_512/train               # 1024x512, as Cityscapes trains
#   data/resample.sh ADE20k/train ADE20k_512/train 512x                              # width 512, as ADE20k trains
#
# The third argument is an ImageMagick geometry. Nothing is resampled in place, and no file is overwritten. data/resample.py
# needs no ImageMagick, and for ADE20k also cuts the sides to multiples of 16 (which train.py does too, when it reads).
set -euo pipefail

fail() { echo "resample.sh: error: $*" >&2; exit 2; }

[ $# -ge 2 ] || fail "usage: resample.sh FOLDER OUTPUT [GEOMETRY]"
source=$(realpath -- "$1") && output=$(realpath -m -- "$2")
geometry=${3:-1024x512!}
[ -d "$source" ] || fail "$1: no such folder"
case "$output/" in "$source"/*) fail "$2: write to a folder apart from $1" ;; esac
case "$source/" in "$output"/*) fail "$2: write to a folder apart from $1" ;; esac
magick=$(command -v magick || command -v convert) || fail "ImageMagick is not installed; use data/resample.py"

partial=
trap '[ -z "$partial" ] || rm -f -- "$partial"' EXIT
count=0
while IFS= read -r -d '' image; do
  relative=${image#"$source"/}
  target=$output/${relative%.*}.png
  [ ! -e "$target" ] || fail "$target: exists already; write to a new folder, and rename images that differ in suffix only"
  mkdir -p -- "$(dirname -- "$target")"
  partial=$target.partial.png
  "$magick" "$image" -auto-orient -filter Lanczos -resize "$geometry" "$partial" || fail "$image: cannot be resampled"
  mv -- "$partial" "$target"
  count=$((count + 1))
done < <(find "$source" -type f \( -iname '*.png' -o -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.webp' -o -iname '*.bmp' \) -print0)
echo "$output: $count images"
