#!/bin/sh
# Writes gen/ from proto/. Needs protoc (Debian: protobuf-compiler); ts-proto comes with npm ci.
set -eu
cd "$(dirname "$0")"
protoc --plugin=../../node_modules/.bin/protoc-gen-ts_proto --proto_path=proto --ts_proto_out=gen \
  --ts_proto_opt=outputServices=none,forceLong=bigint,enumsAsLiterals=true,outputJsonMethods=false,outputPartialMethods=true \
  --ts_proto_opt=useExactTypes=false,unrecognizedEnum=false,importSuffix=.ts,esModuleInterop=true,oneof=unions-value \
  proto/*.proto
