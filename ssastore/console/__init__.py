"""The console: a page on the admin port that shows who owns the /64, what moves, and how requests fare.

    ownership.py   group records as runs of slices, and what changed since a version        pure
    files.py       the page's files over HTTP, and who may have them
    desk.py        its state and its questions
    static/        the page: plain HTML, CSS and ES modules, served as they are

It only looks: nothing is changed through it, and it names the command that does.
"""
