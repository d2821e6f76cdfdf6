# Four images: `ssastore` (node, gateway, commands), `router` (BIRD), `etcd`, and `build`, which is thrown away.
# docs/how-to/compose.md says how they hang together.
#
#   --build-arg BASE=IMAGE           Debian 12 or later; `make compose-test` makes one by debootstrap
#   --build-arg PIP_NO_INDEX=1       no registry: all wheels are in compose/wheels (`make wheels`)
#   --build-arg PIP_INDEX_URL=...    another registry
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
ARG PIP_NO_INDEX
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS=/src/compose/wheels
WORKDIR /src
COPY compose/wheels compose/wheels
COPY pyproject.toml README.md LICENSE ./
COPY ssastore ssastore
# What the checkout is, as a wheel; then it and what it needs, in a directory that is copied as a whole.
RUN python3 -m venv /opt/ssastore \
    && /opt/ssastore/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /tmp/wheel . \
    && /opt/ssastore/bin/pip install --no-cache-dir "$(echo /tmp/wheel/*.whl)[uvloop]" \
    && rm -rf /opt/ssastore/lib/python3*/site-packages/pip /opt/ssastore/lib/python3*/site-packages/pip-* \
        /opt/ssastore/lib/python3*/site-packages/setuptools* /opt/ssastore/bin/pip*

FROM ${BASE} AS router
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bird2 iproute2 \
    && rm -rf /var/lib/apt/lists/* \
    && install -d /run/bird
EXPOSE 179
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["birdc", "show", "status"]
ENTRYPOINT ["/usr/sbin/bird", "-f", "-c", "/etc/router/bird.conf"]

FROM ${BASE} AS etcd
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install --yes --no-install-recommends etcd-client etcd-server \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o etcd -g etcd -m 0700 /var/lib/etcd
USER etcd
ENV ETCDCTL_API=3
EXPOSE 2379
STOPSIGNAL SIGTERM
VOLUME /var/lib/etcd
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s CMD ["etcdctl", "endpoint", "health"]
ENTRYPOINT ["/usr/bin/etcd", "--data-dir", "/var/lib/etcd"]

FROM ${BASE} AS ssastore
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install --yes --no-install-recommends iproute2 python3 util-linux \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 7480 --user-group --home-dir /var/lib/ssastore --shell /usr/sbin/nologin ssastore \
    && install -d -o ssastore -g ssastore -m 0700 /var/lib/ssastore /run/ssastore
COPY --from=build /opt/ssastore /opt/ssastore
COPY compose/start compose/healthy /usr/local/bin/
ENV PATH=/opt/ssastore/bin:$PATH PYTHONUNBUFFERED=1
USER ssastore
EXPOSE 7480 7481 7482
# A supervisor ends its workers within 15 s, a gateway answers what is in flight within 10 s.
STOPSIGNAL SIGTERM
VOLUME /var/lib/ssastore
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s CMD ["healthy", "7480"]
ENTRYPOINT ["ssastore"]
CMD ["node", "--config", "/etc/ssastore/node.toml"]
