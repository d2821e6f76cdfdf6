"""The console: a page on the admin port that shows who owns the /64, what moves, and how requests fare.

ownership.py   group records as runs of slices, and what changed since a version        pure
files.py       the page's files over HTTP
token.py       the admin token, and login codes made of it
door.py        who may look, and who may act: the one point where that is decided
desk.py        its state and its questions
actions.py     what may be done through it, as the commands do it
objects.py     buckets and objects, by the gateway's own S3 interface
telling.py     of the nodes' reports what a page is told; with truth.py, cells.py      pure
story.py       what became of slices                                                   pure
static/        the page: plain HTML, CSS and ES modules, served as they are
"""
