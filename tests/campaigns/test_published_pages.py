"""Pages are published from committed sources only: a changed file is refused before anything runs, with exit
code 2 and one sentence; a draft elsewhere is not.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from emulator import published as pages
from emulator.cli import main as luf
from emulator.repeats.result import repeats
from emulator.result import to_json
from tests.campaigns import published, results, screen
from tests.emulator.fixed import comparison
from tests.emulator.test_repeats import runs


def git(project: Path, *words: str) -> None:
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    subprocess.run(["git", *who, *words], cwd=project, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project under git with a source and the pages; campaigns and `luf golden` take it for theirs."""
    folder = tmp_path / "project"
    (folder / "docs").mkdir(parents=True)
    for name in ("source.py", "README.md", "docs/results.md", "docs/screen.md", "docs/compare.png"):
        (folder / name).write_text(name)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "all")
    monkeypatch.setattr(pages, "ROOT", folder)
    monkeypatch.setattr(screen, "ROOT", folder)
    return folder


def test_a_clean_tree_may_be_published(project):
    """A file that git does not know makes no difference."""
    (project / "notes.txt").write_text("mine")
    pages.check_page(project / "docs" / "results.md", "elsewhere")
    pages.check_page(project / "README.md", "elsewhere")


@pytest.mark.parametrize("staged", [False, True], ids=["changed", "staged"])
def test_a_planted_change_is_refused(project, staged):
    """In one sentence that names page and file; a path that comes in another way is the same page."""
    (project / "source.py").write_text("planted")
    if staged:
        git(project, "add", ".")
    for page in ("docs/results.md", "docs/../docs/new.md", "README.md"):
        with pytest.raises(pages.DirtyTree, match=r"committed sources \(git status: source.py\); commit, or"):
            pages.check_page(project / page, "elsewhere")


def test_a_deleted_file_and_many_are_counted(project):
    """Three are named."""
    for file in (project / "source.py", project / "README.md", *(project / "docs").glob("*.md")):
        file.unlink()
    with pytest.raises(pages.DirtyTree, match=r"README.md, docs/results.md, docs/screen.md and 1 more\)"):
        pages.check_page(project / "docs" / "results.md", "elsewhere")


def test_sources_that_git_does_not_know_are_refused(tmp_path, monkeypatch):
    """Nobody could say of which commit the page is."""
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(pages.DirtyTree, match="not a git repository"):
        pages.check_page(tmp_path / "docs" / "results.md", "elsewhere")


def test_a_draft_is_written_from_any_tree(project, tmp_path):
    """Outside of docs, wherever the sources are."""
    (project / "source.py").write_text("planted")
    pages.check_page(tmp_path / "draft.md", "elsewhere")
    pages.check_page(project / "draft.md", "elsewhere")


def never(*_, **__):
    raise AssertionError("something ran")


def test_each_command_refuses_before_it_runs(project, monkeypatch, capsys):
    """results, published, screen and `luf golden --doc`: exit code 2, one line, no page touched."""
    (project / "source.py").write_text("planted")
    page = str(project / "docs" / "results.md")
    monkeypatch.setattr(results, "carried", never)
    monkeypatch.setattr(published, "sections", never)
    monkeypatch.setattr(screen, "run", never)
    for command in (
        lambda: results.main(["--page", page]),
        lambda: published.main(["--page", page]),
        lambda: screen.main([]),
        lambda: luf(["golden", "--doc", page], emulate=never),
    ):
        assert command() == 2
        said = capsys.readouterr().err
        assert "must be written from committed sources (git status: source.py)" in said
        assert said.count("\n") == 1
    assert Path(page).read_text() == "docs/results.md"


def test_a_draft_of_the_screen_leaves_the_pages_alone(project, tmp_path):
    """Copies are what is written to."""
    (project / "source.py").write_text("planted")
    draft = screen.places(tmp_path / "draft")
    assert {name: page.parent for name, page in draft.items()} == dict.fromkeys(draft, tmp_path / "draft")
    assert draft["README.md"].read_text() == "README.md"


def test_screens_are_made_of_a_stored_result(tmp_path, monkeypatch):
    """All seeds on the front page, the one with the median change on the other, with the spread."""
    monkeypatch.setattr(screen, "draw", lambda comparison, file: None)
    stored = repeats([*runs("linux", 3), *runs("luf", 3, first=40, step=8)], folder="runs/0009-compare")
    (tmp_path / "r.json").write_text(to_json(stored))
    assert screen.main(["--from", str(tmp_path / "r.json"), "--draft", str(tmp_path / "d")]) == 0
    front, other = ((tmp_path / "d" / name).read_text() for name in ("README.md", "screen.md"))
    assert "medians; of linux its lowest and highest run" in front
    assert "luf report runs/0001-compare" in front
    assert "seed 2, oracle on" in other
    assert "| TLB shootdowns | -90.0 % | -88.0 % | -86.1 % | -97.2 % |" in other
    (tmp_path / "one.json").write_text(to_json(comparison()))
    with pytest.raises(ValueError, match="must be a result of --seeds N"):
        screen.read_repeats(str(tmp_path / "one.json"))


def test_paragraphs_and_items_of_a_page_are_filled():
    """Code, tables, headings and comments stay as they are, however long."""
    words = "word " * 30
    kept = [f"# {words}", f"| {words} |", f"<!-- {words} -->", f"    {words}", f"```\n{words}\n```"]
    page = "\n\n".join([*kept, f"{kept[2]}\n{words}", f"- short\n- {words}\n  {words}", "a\nb\n"])
    now = pages.filled(page)
    assert all(part in now for part in kept)
    assert now.split() == page.split()
    assert max(len(line) for line in pages.filled(f"{words}\n- {words}").splitlines()) <= pages.COLUMNS
    assert "\n- short\n- word" in now
    assert "\n  word" in now
    assert now.endswith("\n\na b\n")
    assert pages.filled(now) == now
