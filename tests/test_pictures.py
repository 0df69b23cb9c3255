"""The pictures: each is drawn from its record, alike each time; each that a page shows is there."""

import io
import json
import re
from types import SimpleNamespace

import matplotlib
import pytest
from matplotlib.image import imread

from benchmarks import growth, hosts, pictures, rounds, training
from benchmarks.peers import Unavailable
from benchmarks.privacy import __main__ as privacy
from smpc.pictures import STYLE

MACHINE = "a machine, 2 cores (load 0.0 before the run), one thread a process; Python 3.11.9"
PAGES = [training.REPOSITORY / "README.md", *sorted(training.REPOSITORY.glob("docs/*.md"))]


def cost():
    """A record as `make bench` leaves one."""
    sent = {"messages": 20_000, "bytes": 60_000_000}
    counted = {"rounds": 18, "opened": 3_000_000, "dealt": 2_000_000}
    steps = {training.PLAIN: (0.002, {}), "snn": (12.5, sent), "fss": (6.0, sent)}
    steps["semi2k"] = 0.1, sent | counted
    rows = {name: {"step": step} | counts for name, (step, counts) in steps.items()}
    return {"machine": MACHINE, "rows": rows}


def near_and_far():
    """A record as `make bench-hosts` leaves one, with a system that did not run."""
    figures = {"step": 0.1, "rounds": 18, "bytes": 5e6, "cpu": 0.1, "losses": [1.0, 0.9]}
    results = {("loopback", hosts.ONE_PROCESS): figures}
    for place in hosts.PLACES:
        results |= {(place, name): figures for name in (hosts.PROCESSES, *hosts.SPU)}
    results["WAN", next(iter(hosts.SPU))] = Unavailable("needs Python | 2.0")
    rows = [row for name in hosts.NETWORKS for row in hosts.recorded(name, results, [1.0, 0.8])]
    return {"machine": MACHINE, "rows": rows}


def grown():
    """A record as `make bench-growth` leaves one, of two columns."""
    rows = [dict.fromkeys(growth.FIGURES, size) for size in (16, 64)]
    return {"machine": MACHINE, "groups": [{"what": "items", "sizes": [16, 64], "rows": rows}] * 2}


def attacked():
    """A record as `make privacy-audit` leaves one."""
    members = [{"epsilon": epsilon, "curve": [[1e-3, 1], [1e-2, 1]]} for epsilon in (None, 8, 2)]
    mechanisms = [
        {"variant": "private", "accounted": 8, "broken": broken, "shown": {"epsilon": 3}}
        for broken in (False, True)
    ]
    return {"members": members, "mechanisms": mechanisms}


def of_a_step():
    """The picture of a step that opens one thing of each kind in each of two rounds."""
    openings = [
        rounds.Opening(0, kind, f"what a {kind} opens", False, 800) for kind in rounds.KINDS
    ]
    step = SimpleNamespace(program=SimpleNamespace(instructions=(), fields=()))
    return rounds.picture(step, [openings] * 2)


DRAWN = {
    "parties": pictures.parties,
    "cost": lambda: training.picture(cost()),
    "hosts": lambda: hosts.picture(near_and_far()),
    "growth": lambda: growth.picture(grown()),
    "privacy": lambda: privacy.picture(attacked()),
    "step": of_a_step,
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_the_same_each_time_and_stands_on_any_page(name, monkeypatch):
    monkeypatch.setitem(STYLE, "savefig.dpi", 50)
    monkeypatch.setattr(growth, "FIGURES", growth.FIGURES[:2])  # for the time it takes
    png = DRAWN[name]()
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)  # the user's own style
    assert DRAWN[name]() == png
    pixels = imread(io.BytesIO(png))
    assert (pixels[..., 3] == 1).all(), "the page shows through"
    edges = pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]
    assert all((edge == 1).all() for edge in edges), "no margin: something is cut off"


def test_a_record_is_kept_with_its_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "REPOSITORY", tmp_path)
    record = near_and_far()
    training.keep(tmp_path / "hosts.json", record, lambda record: str(record).encode())
    assert capsys.readouterr().out == "\nwritten: hosts.json and hosts.png\n"
    kept = json.loads((tmp_path / "hosts.json").read_text())
    assert kept == record
    assert (tmp_path / "hosts.png").read_bytes() == str(kept).encode()


def test_the_table_of_hosts_is_of_its_record():
    rows = near_and_far()["rows"]
    lines = [hosts.row(row, rows) for row in rows]
    assert lines[0].startswith("| tutorial | – | semi2k, 1 process | 0.1000 | 1.00 | 18 | 5.00 |")
    assert "| loopback | **semi2k, 4 processes, TLS** | 0.1000 | 1.00 |" in lines[1]
    (failed, *_) = (line for line in lines if "did not run" in line)
    assert "| **did not run:** needs Python / 2.0 | – | – | – | – | – |" in failed
    assert "**wrong: 0.10000**" in lines[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pictures_of_a_page_are_there_and_said_in_words(page):
    shown = re.findall(r"!\[([^]]*)\]\(([^)]*)\)", page.read_text())
    for words, path in shown:
        assert (page.parent / path).is_file(), path
        assert len(words) > 80, f"{path}: for whoever does not see it"
