#!/bin/sh
# Takes out of a virtual environment what no image of ours runs: the libraries' own test suites, the headers and
# tools for building against them, and Arrow's clients for Flight and S3.
#     trim.sh /opt/retrikt
set -eu
packages=$(echo "$1"/lib/python3.*/site-packages)

find "$packages" -type d -name tests -prune -exec rm -rf {} +
rm -rf "$packages"/torch/test "$packages"/torch/include "$packages"/torch/share/cmake \
    "$packages"/torch/bin/protoc* "$packages"/torch/bin/test_* "$packages"/torch/bin/*Test \
    "$packages"/pyarrow/include "$packages"/pyarrow/src
for part in flight s3 s3fs; do
    rm -f "$packages"/pyarrow/lib*arrow*_$part.so* "$packages"/pyarrow/_$part.*.so
done
