"""Threads and processes that write into one folder take nothing from each other."""

import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import physml
from physml.saving import _replacing, replacing


def no_links(*paths):
    raise OSError("this file system has no hard links")


@pytest.mark.parametrize("link", [os.link, no_links])
def test_threads_lose_no_version(tmp_path, monkeypatch, link):
    monkeypatch.setattr(os, "link", link)

    def saves(first):
        for number in range(first, first + 8):
            physml.save(tmp_path, np.full(5000, number), keep=100)

    with ThreadPoolExecutor() as pool:
        list(pool.map(saves, (0, 8, 16, 24)))
    versions = [physml.load(tmp_path, version=n) for n in range(1, 33)]
    assert sorted(int(x[0]) for x in versions) == list(range(32))
    assert {x.name for x in tmp_path.iterdir()} == {f"version_{n}.zip" for n in range(1, 33)}


def test_what_others_write_can_be_loaded_at_any_time(tmp_path):
    physml.save(tmp_path, 0)

    def saves(name):
        for _ in range(10):
            physml.save(tmp_path, np.full(5000, name))

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(saves, name) for name in (1, 2)]
        while not all(writer.done() for writer in writers):
            found = np.unique(physml.load(tmp_path))
            assert found.size == 1, "a mixture of two versions"
    for writer in writers:
        writer.result()
    assert len(list(tmp_path.iterdir())) == 2


def test_processes_take_no_number_twice(tmp_path):
    script = f"""
import pathlib, runpy, sys
add = runpy.run_path({_replacing.__file__!r})["add"]
folder = pathlib.Path({str(tmp_path)!r})
for n in range(30):
    names = (folder / str(n) for n in range(100))
    add(names, folder / "part", lambda path: path.write_text(f"{{sys.argv[1]}} {{n}}"))
"""
    writers = [subprocess.Popen([sys.executable, "-c", script, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    found = {(tmp_path / str(n)).read_text() for n in range(90)}
    assert found == {f"{name} {n}" for name, n in itertools.product("abc", range(30))}
    assert len(list(tmp_path.iterdir())) == 90


def test_threads_that_replace_one_file_leave_one_of_theirs(tmp_path):
    path = tmp_path / "results.json"

    def write(letter):
        for _ in range(20):
            with replacing(path) as part:
                part.write_text(letter * 1000)
            assert path.read_text() in ("a" * 1000, "b" * 1000)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, "ab"))
    assert list(tmp_path.iterdir()) == [path]
