"""Every bound of the system, with its unit in the name and its reason below it.

Numbers that depend on one another are tied by assertions at the end, so a
change of one cannot silently break another.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

# -- objects ---------------------------------------------------------------------------------------

KEY_BYTES_MAX = 1024
"S3's limit for a key, in bytes of UTF-8."

CHUNK_BYTES = 4 * MIB
"Largest blob. An object above ``INLINE_BYTES_MAX`` is cut into blobs of this size (the last one shorter)."

INLINE_BYTES_MAX = 64 * KIB
"Objects up to this size live inside their record: one round trip and one commit."

METADATA_BYTES_MAX = 24 * KIB
"""Encoded metadata of a record, without blob list and inline data: S3's 2 KiB of the user's own, 4 KiB of
headers, and ten tags of 384 characters, which may take four bytes each."""

SEGMENTS_MAX = 64
"Blobs that a record names itself; beyond it the list moves into a manifest blob."

OBJECT_BYTES_MAX = 5 * TIB
"S3's limit for one object."

RECENT_OPS_MAX = 64
RECENT_OPS_MS = 10 * 60 * 1000
"Operations a record remembers, so that a repeated call gets its first result."

BALLOT_AHEAD_US_MAX = 24 * 3600 * 1_000_000
"""How far a ballot's counter may be ahead of an acceptor's clock: a node in the year 2100 must not shut
everybody else out for ever."""

BIRTH_AHEAD_MS = 24 * 3600 * 1000
"""How far after now an operation may say that it was begun. A register remembers such a time, and until then
may not know what it has forgotten; but a node whose clock is hours behind must not refuse others' calls."""
REACH_SKEW_MS = 10_000
"Bound on the difference of two proposers' clocks, when an operation's age is compared with the cut."

PROPOSER_CACHE_NAMES = 16_384
PROPOSER_CACHE_BYTES = 64 * MIB
"Names whose last value and reserved ballot a proposer remembers."

SHARDS_DEFAULT = 16
SHARDS_MAX = 4096
"Shards of an indexed bucket; each is one slice in key order."

BUCKET_RECORD_BYTES_MAX = INLINE_BYTES_MAX
"A bucket's record with all that is set for it: policy, rules, tags."
CONFIG_AGE_MS = 5000
"How old what is known of a bucket's settings may be. A change reaches every gateway in that time."

# -- native protocol --------------------------------------------------------------------------------

FRAME_HEADER_BYTES_MAX = 64 * KIB - 1
"A frame's msgpack header; its length field has 16 bits."

FRAME_BODY_BYTES_MAX = CHUNK_BYTES
FRAME_BYTES_MAX = 2 + FRAME_HEADER_BYTES_MAX + FRAME_BODY_BYTES_MAX

MSGPACK_NESTING_MAX = 16
MSGPACK_ITEMS_MAX = 4096

SCAN_PAGE_ITEMS_MAX = 1000
SCAN_PAGE_BYTES_MAX = 1 * MIB
"One page of a range scan; the scanner stops at whichever comes first."

SURVEY_ENTRIES_MAX = 500
SURVEY_SLICES_MAX = 64
"Slices that are surveyed by one request, if they are small: most of a young cluster's are empty."
SURVEY_BYTES_MAX = 1 * MIB
"One page of a survey, counted in what is read for it; one blob may be above."

DOUBTS_MAX = 10_000
"Stored keys of one environment that wait to be looked at, or are looked at again."

REFERENCES_MAX = 4096
"References to one blob that are looked at at once; more of them keep it as well."

GREETING_TIMEOUT_MS = 10_000
"From accept to the end of the greeting; then the connection is closed."

IDLE_TIMEOUT_MS = 10 * 60 * 1000
"A connection without a frame for this long is closed by the node."

STALL_TIMEOUT_MS = 60_000
"A peer that has not read its replies for this long is closed."

INFLIGHT_REQUESTS_MAX = 4096
"Requests of one connection that are not answered yet; then the node stops reading from it."

INFLIGHT_BYTES_MAX = 32 * MIB
"Bytes of one connection's unfinished writes; then the node stops reading from it."

TLS_GOODBYE_MS = 2_000
"How long a connection that was closed waits for the other side to say that it has heard so."
FILES_LOOKED_AT_MS = 5_000
"How often certificates and secrets are looked at, whether they have changed."

LISTEN_BACKLOG = 1024
"""Connections that wait to be accepted. asyncio's 100 are too few for a fleet that starts at once: who finds
the queue full tries again after a second."""

CONNECTIONS_MAX = 8192
"Connections of one worker."

WRITE_BUFFER_BYTES = 1 * MIB
"Output of one turn that is collected for one connection before it is written."

FLUSH_FRAMES = 8
"""Frames that are collected before they are written. Fewer cost more system calls; with more, client and
node take turns instead of working at the same time."""

# -- time -------------------------------------------------------------------------------------------

DIAL_TIMEOUT_MS = 3_000
CALL_DEADLINE_MS = 30_000
"Default deadline of one client call, retries included."
CALL_DEADLINE_MS_MAX = 60_000
ATTEMPT_TIMEOUT_MS = 10_000
"One attempt of a call; then the connection is taken for dead."
RETRY_BASE_MS = 5
RETRY_CAP_MS = 320
CONTROL_TIMEOUT_MS = 5_000

TOMBSTONE_KEPT_MS = 60 * 60 * 1000
"How long a delete is remembered: far above the longest deadline of a call that could repeat it."

BLOB_GRACE_MS = 24 * 60 * 60 * 1000
"How long a blob is kept for a record that does not name it (yet)."

# -- recovery -------------------------------------------------------------------------------------

PULL_PAGE_BYTES = 1 * MIB
"Records of one page of a recovery, give or take one."

PULL_PAGE_ROWS = 500
"And so many of them at most: short records take longer than their bytes, and clients wait meanwhile."

PULL_SCAN_BYTES_MAX = 2 * CHUNK_BYTES
"Stored bytes that are read for one page: blobs are read to be verified, and only named in it."

RECOVERY_BYTES_PER_S = 64 * MIB
"What a node that is being rebuilt takes from its mates, at most: they serve clients meanwhile."

RECOVERIES_AT_ONCE = 32
"""Slices of lost nodes that one worker has begun. Each changes its group's cfg, which calls under way have to
learn, and while it waits for its mates nothing else of its group can move."""

RECOVERY_PATIENCE_MS = 10_000
"Slices that are begun for longer wait for a mate that has gone. Others are begun beside them."

RECOVERY_REST_TO_WORK = 1
"""How many times as long a worker rests as it recovers. More would leave slices without their third copy for
longer; none lets clients wait for the same core and disk."""

RECOVERY_RETRY_MS = 1_000
"Wait after a round of a recovery that could not do everything."

FENCE_BUDGET_MS = 3_000
"How long a mate may take to learn of a new configuration and make the fence durable."

DRIFT_EVERY_MS = 5_000
"How often a host's routes are read back, and repaired when somebody else has changed them."

ROUTES_GATHERED_MS = 20
"Between two changes of a host's routes: what comes meanwhile is one change. The first one is made at once."

ORDER_EVERY_MS = 2_000
"How often a worker looks for an operator's order."

MOVE_BATCH = 16
"Slices that are handed over together: one transaction of the control store begins them, one finishes them."

GROUP_PARTS_MAX = 256
"Parts of one group: its record, one value of the control store, has some 300 bytes for each."

MERGE_MS_MAX = 30_000
"When a merge of parts is called off to which a plane has not said that it is ready: its node may be down."

MOVES_AT_ONCE = 4
"Batches that one worker takes over at the same time when an operator has set a rate; else it is one."

MOVE_REST_TO_WORK = 4
"""How many times as long a worker rests as it takes slices over, unless an operator has set a rate: whoever
waits for the same core or disk is served then."""

MOVE_SLICE_S = 0.008
"What a small slice costs the worker that takes it, as measured with five nodes on two cores: for estimates."

RECORDS_READ_SINGLY = 64
"Group records that are asked for one by one, together; of more all are listed, which takes the time of 500."

MOVE_PIECE_BYTES = 128 * KIB
"What a worker that takes slices over gently stores in one change, give or take a record: a turn of 1 ms."

MOVE_ROW_BYTES = 1 * KIB
"For how much of it a short record counts: to store one takes some 10 us, however short."

MOVE_BYTES_PER_S = 128 * MIB
"What one worker takes from sources, at most, between its rests: they serve clients meanwhile."

MOVE_BYTES_PER_S_MIN = 1 * MIB
MOVE_BYTES_PER_S_MAX = 1 << 40
"What can be set. Slower, and a source would take a target that waits for its turn for one that has gone."

MOVE_PAGES_INFLIGHT = 4
"Pages of one copy that are being stored while the next one is asked for: one commit takes all that wait."

MOVE_CHANGES_MAX = 100_000
"Names changed while they are copied that the source remembers; with more of them the copy begins again."

MOVE_TAIL_KEYS = 64
MOVE_ROUNDS_MAX = 3
"""Slices are sealed when no more changes than this are left, or when so many rounds of taking them have found
no fewer: they come as fast."""

SEALED_MS_MAX = 5_000
"How long a source stays sealed before it asks the control store to call the handover off."

MOVE_SILENT_MS = 60_000
"How long target and source wait for one another before they call a handover off."

MOVE_REST_MS = 5_000
"And how long the target waits before it begins a slice again that was called off."

CONTROL_FRESH_MS = 1_000
"How old the last answer of the control store may be when a slice is sealed: it must be there to decide."

GOAWAY_MS = 500
"How long a former owner of addresses goes on accepting them, to say that they are not its own any more."

DRAIN_MS = 30_000
"How long it keeps the data."

MARK_EVERY_MS = 5_000
"How often an environment that was written to tells others how far it is."

MARK_BUDGET_MS = 500
"How long a starting environment waits for its peers' word: in a power cut they start at the same time."

# -- store ------------------------------------------------------------------------------------------

STORED_KEY_BYTES_MAX = 1200
"Longest key that a store takes: locator, kind, bucket id, object key, upload id, part number."

STORED_VALUE_BYTES_MAX = CHUNK_BYTES + 64 * KIB

MAP_BYTES_DEFAULT = 64 * GIB
"Size of the sparse LMDB map of one worker; the file grows only as it is written."

MAP_RESERVE_PERCENT = 10
"Share of the map that only deletes may use: copy-on-write needs free pages to delete."

DISK_RESERVE_BYTES = 64 * MIB
"New data is refused while the file system has less than this free."

STORE_READERS_MAX = 48
"""Read transactions of one store open at once; LMDB's table of them then fits one page, which is allocated
when the store opens and cannot fail later on a full disk."""

COMMIT_OPS_MAX = 1024
COMMIT_BYTES_MAX = 16 * MIB
"One group commit; the bytes bound memory, since LMDB holds dirty pages on the heap."

LOG_BLOCK_BYTES = 4 * KIB
"A frame of the log begins at a multiple of it: no write touches a page or sector of another frame."

LOG_FILE_BYTES = 16 * MIB
"""Each of the two log files of a store. Bounds what is replayed at a start, and the memory of a table: one is
written to while the other's is brought into LMDB, which begins when the first is half full."""

LOG_FILE_MAP_SHARE = 64
"A small map gets log files of this share of it: a checkpoint of one must always fit."

LOG_BATCH_BYTES_MAX = 1 * MIB
"Records of one frame, about; what comes meanwhile goes into the next. A sync of it takes some milliseconds."

LOG_CHANGE_BYTES_MAX = 256 * KIB
"""A change that writes more goes straight into LMDB: writing it twice would cost more than the commit, and on
the event loop it would hold up everybody."""

CHECKPOINT_SLICE_RECORDS = 64
"Records that go into LMDB in one turn of the event loop: some 0.2 ms."

CHECKPOINT_PARTS = 16
"Transactions of a checkpoint for which the map has no room in one."

# -- control store ----------------------------------------------------------------------------------

CONTROL_KEY_BYTES_MAX = 256
"In UTF-8. LMDB takes 511 bytes, of which the file format needs one."

CONTROL_OPS_MAX = 128
"Writes of one transaction, and compares of it: what etcd takes by default (--max-txn-ops)."

CONTROL_TRANSACTION_BYTES_MAX = 1 * MIB
"Keys and values of one transaction; etcd takes requests of 1.5 MiB by default."

CONTROL_BYTES_MAX = 64 * MIB
"All keys and values; new data is refused above it, deletes go on. 4096 groups need 1 MiB."

CONTROL_MAP_BYTES = 512 * MIB
"LMDB map of the embedded store: room for page rounding and copy-on-write, so it never fills first."

CONTROL_LEASES_MAX = 4096

CONTROL_EVENTS_MAX = 10_000
CONTROL_EVENTS_BYTES_MAX = 16 * MIB
"Changes remembered for watches; who asks for older ones lists again."

CONTROL_FRAME_BYTES_MAX = 8 * MIB
CONTROL_PAGE_BYTES = 1 * MIB
"Items or events of one frame of the embedded store's socket, give or take one item."

CONTROL_CONNECTIONS_MAX = 1024
CONTROL_REQUESTS_MAX = 256
"Requests of one connection that are not answered yet; then the server stops reading from it."
CONTROL_WATCHES_MAX = 256
"Watches of one connection."
CONTROL_WATCH_WINDOW = 4
"Frames of events sent ahead of a watch's consumer: bounds what a slow one keeps in memory."

CONTROL_ANSWER_BYTES_MAX = 32 * MIB
"""One answer of etcd, or one line of its watch. It cuts events at about 2 MiB, which base64 and the names
around short values make up to ten times as long."""

CONTROL_PAGE_ITEMS = 1000
"Items asked of etcd at once; a page that is longer than an answer may be is asked for again in halves."

CONTROL_LISTS_MAX = 3
"How often a listing of several pages begins anew because its revision was compacted half way."

CONTROL_QUIET_MS = 10_000
"A watch of etcd that brings nothing for so long asks the same endpoint whether it still answers."

# -- who is there -------------------------------------------------------------------------------------

LEASE_MS = 10_000
"How long after its last sign a node, or the coordinator, is missed. It gives one three times as often."
LEASE_RETRY_MS = 1_000
"Wait after a sign that the control store did not take."

GUARD_EVERY_MS = 1_000
"How often the coordinator looks who is there."
STAND_EVERY_MS = 3_000
"How often others look whether there is a coordinator: all nodes do."
GUARD_GAP_MS = 5_000
"When it could not look for longer, it does not know who was there, and begins to watch anew."
ABSENCE_TOLD_MS = 5_000
"How long a node is missed before that is said: when many start at once, the first sees none of the others."
RENUMBER_TTL_S = 300
RENUMBER_TTL_S_MAX = 30 * 24 * 3600
"How long a former service prefix stays: what resolvers may keep of it, a month at most."
RENUMBER_NOTE_S = 10
"How often it is noted how much of that is left: what another coordinator would count again."
LOST_ORDER_EVERY_MS = 10_000
"How often it orders again what is lost: what too few other planes were left of may be possible by now."

RECOVER_AFTER_S = 600
"How long a node must be gone until its slices are recovered at others, unless set otherwise."
RECOVER_AFTER_S_MIN = 10
RECOVER_AFTER_S_MAX = 30 * 24 * 3600

# -- how much is stored -----------------------------------------------------------------------------

USAGE_EVERY_MS = 3_600_000
"Time from one note of what the cluster stores to the next."
USAGE_NOTES_MAX = 14 * 24
"Two weeks: growth of a month ago says little of the next one. One record of some 15 KiB."
USAGE_LOOK_MS = 60_000
"How often the node that coordinates looks whether a note is due."
FORECAST_SPAN_MIN_MS = 24 * USAGE_EVERY_MS
"A forecast needs notes of a day: use goes with the hours."

# -- copies of the control store ---------------------------------------------------------------------

CONTROL_COPY_LOOK_MS = 5_000
"How soon after a change of the layout a node has it in its own copy, about. One file of some 800 KiB."
CONTROL_COPY_EVERY_MS = 60_000
"How often it looks for changes that it does not follow: environments that were claimed, settings."

# -- plans ------------------------------------------------------------------------------------------

PLAN_STEPS_MAX = 500_000
"Changes of a plan, or splits, or merges. A first layout of 10,000 nodes has some 100,000."
PLAN_FILE_BYTES_MAX = 64 * MIB

# -- S3 ---------------------------------------------------------------------------------------------

PART_BYTES_MIN = 5 * MIB
PART_BYTES_MAX = 5 * GIB
PARTS_MAX = 10_000
POST_BYTES_MAX = 5 * GIB
"A file that comes in a form, as in S3."
FORM_BYTES_MAX = 20 * KIB
"The fields before the file, as in S3: they are kept in memory."
FORM_TAIL_BYTES_MAX = 64 * KIB
"What may follow the file; nobody looks at it."
COPY_BYTES_MAX = 5 * GIB
"What one request copies, as in S3: some 1,280 references, or as many chunks that are cut anew."
LIST_KEYS_MAX = 1000
XML_BYTES_MAX = 2 * MIB
XML_DEPTH_MAX = 32
XML_ELEMENTS_MAX = 5 * PARTS_MAX
"Elements of one request body: a completion of all parts has four elements each (number, ETag, checksum)."

PRESIGNED_S_MAX = 7 * 24 * 3600
"Longest life of a presigned URL, in seconds."

INVOCATIONS_MAX = 65_536
"Requests whose first attempt a gateway remembers, so that it knows the age of a repetition."

ACCESS_KEYS_KNOWN_MAX = 10_000
"Access keys that a gateway remembers, and as many that open nothing: nobody can fill its memory by asking."

SIGNING_KEYS_MAX = 10_000
"Derived SigV4 signing keys that are kept; each is good for one secret, day and region."

AWS_CHUNK_LINE_BYTES_MAX = 1 * KIB
"Header line of one aws-chunked chunk: size and signature need 98 bytes."

AWS_CHUNK_BYTES_MAX = 16 * MIB
"A signed chunk is held back until its signature is verified; SDKs send 64 KiB to 1 MiB."

AWS_SMALL_CHUNK_BYTES = 8 * KIB
AWS_SMALL_CHUNKS_MAX = 10_000
"Chunks below ``AWS_SMALL_CHUNK_BYTES`` (S3 allows one): bounds the CPU a body of tiny chunks costs to 0.1 s."

AWS_TRAILER_BYTES_MAX = 16 * KIB
CORS_RULES_MAX = 100
CORS_ID_CHARACTERS_MAX = 255
"S3's bounds on CORS rules."
TAG_KEY_CHARACTERS_MAX = 128
TAG_VALUE_CHARACTERS_MAX = 256
OBJECT_TAGS_MAX = 10
BUCKET_TAGS_MAX = 50
"S3's bounds on tags."
USER_METADATA_BYTES_MAX = 2 * KIB
"S3's bound on the sum of user metadata names and values."
CLOCK_SKEW_MS = 15 * 60 * 1000

SHARED_READS_MAX = 4
"""Reads of one name that one client has under way; who comes then waits for the next one, and shares it.
With one, two callers would wait for each other all the time."""
SHARED_READ_WAIT_MS = 20
"How long callers wait for a read that is under way, before one for all of them begins beside it."

STREAM_CHUNKS_INFLIGHT = 4
"Blobs of one stream under way at once, in each direction: bounds memory to about this many chunks."

assert SURVEY_ENTRIES_MAX * (STORED_KEY_BYTES_MAX + 64) < FRAME_BODY_BYTES_MAX, "a listing fits a frame"
assert 2 * CALL_DEADLINE_MS_MAX + RECENT_OPS_MS < TOMBSTONE_KEPT_MS < BLOB_GRACE_MS
assert 2 * GUARD_EVERY_MS < GUARD_GAP_MS < LEASE_MS, "a coordinator that looks keeps its lease"
assert LEASE_MS / 3 + CONTROL_TIMEOUT_MS + LEASE_RETRY_MS < RECOVER_AFTER_S_MIN * 1000, (
    "a node gives a sign before it is taken for lost when the control store was away"
)
assert CHUNK_BYTES <= FRAME_BODY_BYTES_MAX, "a blob must fit a frame"
assert INLINE_BYTES_MAX + METADATA_BYTES_MAX < FRAME_BODY_BYTES_MAX
assert METADATA_BYTES_MAX + KEY_BYTES_MAX + SEGMENTS_MAX * 48 + 256 <= FRAME_HEADER_BYTES_MAX
assert FRAME_BODY_BYTES_MAX + 4 * KIB <= STORED_VALUE_BYTES_MAX
assert KEY_BYTES_MAX + 13 + 17 + 3 <= STORED_KEY_BYTES_MAX
assert SCAN_PAGE_BYTES_MAX + METADATA_BYTES_MAX + KEY_BYTES_MAX < FRAME_BODY_BYTES_MAX
assert MOVE_PIECE_BYTES + INLINE_BYTES_MAX + METADATA_BYTES_MAX <= LOG_CHANGE_BYTES_MAX, (
    "a piece of a slice goes to the log"
)
assert PULL_PAGE_BYTES + INLINE_BYTES_MAX + 16 * KIB < FRAME_BODY_BYTES_MAX, "a page must fit a frame"
assert COMMIT_BYTES_MAX >= STORED_VALUE_BYTES_MAX, "one largest write must fit a commit"
assert LOG_FILE_BYTES % LOG_BLOCK_BYTES == 0
assert LOG_CHANGE_BYTES_MAX <= LOG_BATCH_BYTES_MAX <= LOG_FILE_BYTES // 8, "a file must take several batches"
assert INLINE_BYTES_MAX + METADATA_BYTES_MAX + 16 * KIB <= LOG_CHANGE_BYTES_MAX, (
    "inline objects go to the log"
)
assert (
    (MOVES_AT_ONCE - 1) * STREAM_CHUNKS_INFLIGHT + 1
) * CHUNK_BYTES * 1000 < MOVE_BYTES_PER_S_MIN * MOVE_SILENT_MS, (
    "a batch must get its turn before its source gives it up"
)
assert ATTEMPT_TIMEOUT_MS <= CALL_DEADLINE_MS <= CALL_DEADLINE_MS_MAX
assert RETRY_CAP_MS == RETRY_BASE_MS * 64
assert XML_ELEMENTS_MAX >= 4 * PARTS_MAX + 1, "a completion of all parts must be readable"
assert XML_BYTES_MAX >= 200 * PARTS_MAX, "a part's four elements take up to 180 bytes"
assert CALL_DEADLINE_MS_MAX < RECENT_OPS_MS, "a repeated call must still find its first result"
assert 4 * CONTROL_TRANSACTION_BYTES_MAX < CONTROL_ANSWER_BYTES_MAX, "one item always fits into an answer"
assert 2 * (CONTROL_PAGE_BYTES + CONTROL_TRANSACTION_BYTES_MAX) < CONTROL_FRAME_BYTES_MAX
assert CONTROL_BYTES_MAX * 4 <= CONTROL_MAP_BYTES, "the map must not fill before the bound on data does"
