"""Texts of settings' files and what systemd reads in them."""

from __future__ import annotations

# systemd's own program is held against them in kernel/test_settings_file
READ_BY_SYSTEMD: list[tuple[str, dict[str, str]]] = [
    ("", {}),
    ("\n \t\n# A=1\n;B=2\n  # C=3\n", {}),
    ("A=1\n", {"A": "1"}),
    ("A=1", {"A": "1"}),
    ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
    ("A=\nB=\t \nC=3\n", {"A": "", "B": "", "C": "3"}),
    ("A=1\nB=2\nA=3\n", {"A": "3", "B": "2"}),
    ("  A = v w \t\n", {"A": "v w"}),
    ("A=a#b\nB=1 # not a comment\nC=;\n", {"A": "a#b", "B": "1 # not a comment", "C": ";"}),
    ("A==x=y\n", {"A": "=x=y"}),
    ("a line without the sign\nA=1\n", {"A": "1"}),
    ("export A=1\n2A=1\nA-B=1\nA.B=1\n_a9=1\n", {"_a9": "1"}),
    ("A='x y'\nB=\"x y\"\n", {"A": "x y", "B": "x y"}),
    ("A='x' \"y\" z \n", {"A": "xyz"}),
    ("A=x'y'\nB=x\"y\"\n", {"A": "x'y'", "B": 'x"y"'}),
    ("A=' x '\nB=\" x \"  \n", {"A": " x ", "B": " x "}),
    ("A='x\ny'\nB=\"x\ny\"\n", {"A": "x\ny", "B": "x\ny"}),
    ("A='a\\b\\\\'\n", {"A": "a\\b\\\\"}),
    (r'A="a\nb\"c\\d\'"' + "\n", {"A": "a\\nb\"c\\d\\'"}),
    (r"A=a\nb\"c\\d\'" + "\n", {"A": "anb\"c\\d'"}),
    ("A=a \\\n b\nB=1\n", {"A": "a  b", "B": "1"}),
    ('A="a \\\n b"\n', {"A": "a  b"}),
    ('A=\\\n"b"\n', {"A": '"b"'}),
    ("A=b\\ \nB=b \\ \n", {"A": "b ", "B": "b  "}),
    ("A=b\\", {"A": "b"}),
    ("A='b", {"A": "b"}),
    ('A="b\\', {"A": "b"}),
    ("A=ü\n# caf\udce9\n", {"A": "ü"}),
    ("# a \\\n# b\nA=1\n", {"A": "1"}),
    ("# a \\\n\nA=1\n", {"A": "1"}),
    ("A='\t' \tx\n", {"A": "\tx"}),
]
