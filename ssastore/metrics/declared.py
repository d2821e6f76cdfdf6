"""Every metric there is. A name stands here once; dashboard, alerts and documents are checked against it.

Names begin with what they are of: ``s3`` and ``front`` a gateway, ``worker`` a worker (as it told the gateway
that is scraped), ``node`` and ``cluster`` what the control store and all of them say.  Series that are the
same at every gateway are joined by ``max``, never summed.  No label has values that clients choose, and none
names slices: there are 65,536 of them.
"""

from __future__ import annotations

from ssastore.metrics.text import Kind, Metric

_WORKER = ("node", "worker")


def _counter(name: str, text: str, *labels: str, unit: str = "") -> Metric:
    return Metric(name, Kind.COUNTER, text, labels, unit)


def _gauge(name: str, text: str, *labels: str, unit: str = "") -> Metric:
    return Metric(name, Kind.GAUGE, text, labels, unit)


# -- the process that is scraped --------------------------------------------------------------------

CPU = _counter("process_cpu_seconds_total", "CPU time of this gateway, user and system.", unit="seconds")
RESIDENT = _gauge("process_resident_memory_bytes", "Resident memory of this gateway.", unit="bytes")
DESCRIPTORS = _gauge("process_open_fds", "Open files and sockets of this gateway.")
DESCRIPTORS_MAX = _gauge("process_max_fds", "Most files and sockets that it may have open.")
STARTED = _gauge("process_start_time_seconds", "When it was started, in Unix time.", unit="seconds")
BUILD = _gauge("ssastore_build_info", "1, by version and form of the hot modules.", "version", "form")

# -- its requests -----------------------------------------------------------------------------------

S3_REQUESTS = _counter(
    "ssastore_s3_requests_total", "S3 requests answered, by operation and HTTP status.", "op", "code"
)
S3_DURATION = Metric(
    "ssastore_s3_request_duration_seconds",
    Kind.HISTOGRAM,
    "Time from the headers of a request to the last byte of its answer.",
    ("op",),
    "seconds",
)
S3_IN_FLIGHT = _gauge("ssastore_s3_requests_in_flight", "S3 requests that are being answered.")
S3_ERRORS = _counter("ssastore_s3_errors_total", "S3 requests that failed, by S3 error code.", "error")
S3_RECEIVED = _counter("ssastore_s3_received_bytes_total", "Bytes of the bodies of requests.", unit="bytes")
S3_SENT = _counter("ssastore_s3_sent_bytes_total", "Bytes of answers, their headers included.", unit="bytes")
S3_BLOBS = _counter(
    "ssastore_s3_blobs_total",
    "Parts of large objects that were read, by where they came from: kept, shared, fetched.",
    "source",
)
S3_KEPT = _gauge("ssastore_s3_kept_blob_bytes", "Parts of large objects in memory.", unit="bytes")
FRONT_CONNECTIONS = _counter(
    "ssastore_front_connections_total", "Connections by the verdict of the front plane's rule.", "verdict"
)
FRONT_SHARE = _gauge(
    "ssastore_front_share_ratio",
    "Part of the front plane that a gateway owns, of 1.",
    "gateway",
    unit="ratio",
)

# -- the cluster ------------------------------------------------------------------------------------

CONTROL_UP = _gauge("ssastore_cluster_control_store_up", "1 when the control store answered in time.")
COORDINATED = _gauge(
    "ssastore_cluster_coordinated", "1 when a node coordinates; no sample when nobody can tell."
)
REPLICAS = _gauge("ssastore_cluster_replicas", "Replicas that there are to be.")
GROUPS = _gauge("ssastore_cluster_groups", "Groups and parts of groups.")
GROUPS_LOST = _gauge(
    "ssastore_cluster_groups_without_majority",
    "Groups that can be neither read nor written: most planes are silent.",
)
GROUPS_DEGRADED = _gauge(
    "ssastore_cluster_groups_degraded", "Groups that have a majority of their planes, and not all."
)
NODE_UP = _gauge(
    "ssastore_node_up", "1 when the node has a lease; no sample when the control store does not tell.", "node"
)
NODE_SLICES = _gauge("ssastore_node_slices", "Slices that the node owns by the control store.", "node")

# -- workers ----------------------------------------------------------------------------------------

WORKER_UP = _gauge(
    "ssastore_worker_up", "1 when the worker answered, as itself, at an address of its own.", *_WORKER
)
WORKER_UPTIME = _gauge("ssastore_worker_uptime_seconds", "Since its start.", *_WORKER, unit="seconds")
WORKER_CPU = _counter(
    "ssastore_worker_cpu_seconds_total", "CPU time, user and system.", *_WORKER, unit="seconds"
)
SLICES = _gauge("ssastore_worker_slices", "Slices that it serves.", *_WORKER)
SILENT = _gauge("ssastore_worker_silent_slices", "Slices of its own for which it does not vote.", *_WORKER)
CONNECTIONS = _gauge("ssastore_worker_connections", "Open connections.", *_WORKER)
ACCEPTED = _counter("ssastore_worker_connections_accepted_total", "Connections accepted.", *_WORKER)
DENIED = _counter(
    "ssastore_worker_greetings_denied_total", "Connections with an unknown key or a wrong secret.", *_WORKER
)
PEER_ERRORS = _counter(
    "ssastore_worker_peer_errors_total", "Connections ended for what the other side sent.", *_WORKER
)
VERDICTS = _counter(
    "ssastore_worker_rule_verdicts_total",
    "Connections by the verdict of the rule of addresses.",
    *_WORKER,
    "verdict",
)
REQUESTS = _counter(
    "ssastore_worker_requests_total", "Requests of the native protocol, by kind.", *_WORKER, "op"
)
REFUSALS = _counter("ssastore_worker_refusals_total", "Answers other than OK, by status.", *_WORKER, "status")

RECORDS = _gauge("ssastore_worker_records", "Records stored.", *_WORKER)
STORED = _gauge("ssastore_worker_stored_bytes", "Bytes of the map in use.", *_WORKER, unit="bytes")
STORE_LIMIT = _gauge(
    "ssastore_worker_store_limit_bytes", "Bytes that records may fill.", *_WORKER, unit="bytes"
)
DISK_FREE = _gauge(
    "ssastore_worker_disk_free_bytes", "Free bytes of the disk below it.", *_WORKER, unit="bytes"
)
LOGGED = _gauge("ssastore_worker_log_records", "Records that the log holds and LMDB does not yet.", *_WORKER)
LOG_WRITES = _counter(
    "ssastore_worker_log_writes_total", "Batches written to the log, each synced.", *_WORKER
)
LOG_SECONDS = _counter(
    "ssastore_worker_log_write_seconds_total",
    "Time until these batches were durable.",
    *_WORKER,
    unit="seconds",
)
CHECKPOINTS = _counter(
    "ssastore_worker_checkpoints_total", "Times that the log was brought into LMDB.", *_WORKER
)
DIRECT = _counter("ssastore_worker_direct_commits_total", "Commits to LMDB that passed by the log.", *_WORKER)

COMING = _gauge("ssastore_worker_moves_coming", "Slices that are being handed over to it.", *_WORKER)
GOING = _gauge("ssastore_worker_moves_going", "Slices that are being handed over by it.", *_WORKER)
TAKEN = _counter("ssastore_worker_moves_taken_total", "Slices that it has taken over.", *_WORKER)
TAKEN_BYTES = _counter("ssastore_worker_moves_taken_bytes_total", "Bytes of them.", *_WORKER, unit="bytes")
PAUSED = _gauge("ssastore_worker_moves_paused", "1 while nothing is to move.", *_WORKER)
TO_RECOVER = _gauge("ssastore_worker_recovery_left_slices", "Slices that it has yet to rebuild.", *_WORKER)
RECOVERED = _counter("ssastore_worker_recovered_slices_total", "Slices that it has rebuilt.", *_WORKER)
RECOVERED_BYTES = _counter("ssastore_worker_recovered_bytes_total", "Bytes of them.", *_WORKER, unit="bytes")

BAD = _gauge(
    "ssastore_worker_bad_copies",
    "Copies known to be rotten, missing or stale: its own (here), or of mates.",
    *_WORKER,
    "where",
)
REPAIRED = _counter("ssastore_worker_repaired_copies_total", "Copies that were repaired.", *_WORKER)
UNREPAIRED = _counter("ssastore_worker_failed_repairs_total", "Attempts at a repair that failed.", *_WORKER)
SCRUBBING = _gauge(
    "ssastore_worker_scrub_running", "1 while it reads and compares all of its copies.", *_WORKER
)
SCRUBBED_AT = _gauge(
    "ssastore_worker_scrub_last_end_seconds",
    "When the last pass ended, in Unix time; 0: none since its start.",
    *_WORKER,
    unit="seconds",
)
SCRUB_HEALTHY = _gauge(
    "ssastore_worker_scrub_healthy",
    "1 when the last pass has compared every copy and all are good.",
    *_WORKER,
)

METRICS: tuple[Metric, ...] = tuple(
    [found for found in list(globals().values()) if isinstance(found, Metric)]
)
"All of them, in the order of this file."

assert len({metric.name for metric in METRICS}) == len(METRICS), "a name stands here once"
