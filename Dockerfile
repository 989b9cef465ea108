# An image whose container is the node agent of its host; how it has to be run is in docs/install.md.

FROM node:24-bookworm-slim AS build
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund --loglevel=error
COPY . .
RUN npm run --silent build

FROM debian:bookworm-slim
# Versions are Debian's: a pinned one is gone from its servers with the next security fix.
# hadolint ignore=DL3008
RUN apt-get update -q \
 && apt-get install -y -q --no-install-recommends \
      ca-certificates conntrack containernetworking-plugins iproute2 iptables kmod libstdc++6 mount nfs-common nftables procps util-linux \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -m 0755 /etc/stevedore /usr/lib/stevedore \
 && ln -s ../lib/stevedore/stevedore /usr/bin/stevedore
COPY --from=build /src/dist/node /src/dist/stevedore /usr/lib/stevedore/
COPY --from=build /src/dist/stevedore.mjs /usr/lib/stevedore/
COPY --from=build /src/dist/parts /usr/lib/stevedore/parts/
COPY scripts/package/files/config.yaml /etc/stevedore/config.yaml
# Root: it mounts, enters namespaces and writes rules of the host.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["stevedore", "status"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/stevedore"]
CMD ["run", "--config", "/etc/stevedore/config.yaml"]
