"""The folders of a training run: names, whether they can be written, and what is deleted."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from config import UserError, directories
from training.folders import RunFolders


@pytest.fixture
def folders(tmp_path) -> RunFolders:
    return RunFolders.of(
        "run", directories(**{name: str(tmp_path / name) for name in ("checkpoints", "samples", "tensorboard")})
    )


def checkpoint(folders: RunFolders, name: str, *extra: str) -> None:
    (folders.checkpoints / name).mkdir(parents=True)
    for file in ("config.json", "model.npz", "training.npz", *extra):
        (folders.checkpoints / name / file).touch()


def left(folders: RunFolders) -> list[str]:
    return sorted(path.name for path in folders.checkpoints.iterdir())


@pytest.mark.parametrize("name", ["", ".", "..", "../../x", "/tmp/x", "a/../b", "a//b", "a/", "/", "-rl", ".hidden", "a/.b",
                                  "a\nb", "a\0b", "n" * 300, "ckpt-00000001", "a/ckpt-3", "a:b", "a;b"])  # fmt: skip
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(UserError, match="--name"):
        RunFolders.of(name, directories())


def test_all_folders_follow_the_name():
    one, two = (RunFolders.of(name, directories()) for name in ("exp1/lr 1", "exp2/lr 1"))
    for folder in ("checkpoints", "samples", "logs"):
        assert getattr(one, folder) != getattr(two, folder)
        assert str(getattr(one, folder)).endswith("/exp1/lr 1")


@pytest.mark.parametrize("broken", ["checkpoints", "samples", "logs"])
@pytest.mark.parametrize("how", ["file", "file above", "dangling link"])
def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_left(broken, how, folders, tmp_path):
    bad = getattr(folders, broken)
    (bad if how != "file above" else bad.parent).parent.mkdir(parents=True, exist_ok=True)
    if how == "file":
        bad.touch()
    elif how == "file above":
        bad.parent.touch()
    elif how == "dangling link":
        bad.symlink_to(tmp_path / "nowhere" / "at all")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="cannot be written") as error, folders.locked():
        pass
    assert str(bad) in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(folders, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match=r"checkpoints.*denied"), folders.locked():
            pass
    finally:
        tmp_path.chmod(0o700)


def test_folders_that_can_be_written_are_left_as_they_were(folders, tmp_path):
    with folders.locked():
        pass
    assert not list(tmp_path.iterdir())
    checkpoint(folders, "ckpt-00000001")
    before = sorted(tmp_path.rglob("*"))
    with folders.locked():
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_runs_of_other_names_that_start_at_the_same_moment_do_not_disturb_each_other(tmp_path):
    where = directories(**{name: str(tmp_path / name) for name in ("checkpoints", "samples", "tensorboard")})

    def start(i: int) -> None:
        for _ in range(30):
            with RunFolders.of(f"run{i}", where).locked():
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, range(8)))
    assert all(path.is_dir() for path in tmp_path.rglob("*"))


def test_only_the_runs_own_checkpoints_are_counted_and_deleted(folders, tmp_path):
    for step in (1, 2, 3, 100_000_000, 99_999_999):
        checkpoint(folders, f"ckpt-{step:08d}")
    others = ["ckpt-00000001-good", "ckpt-best", "ckpt-5", "ckpt-000000004", "notes", "ckpt-"]
    for name in others:
        checkpoint(folders, name)
    checkpoint(folders, "ckpt-00000000", "notes.txt")  # somebody's notes are in it
    (folders.checkpoints / "ckpt-00000006").touch()  # a file
    (tmp_path / "elsewhere").mkdir()
    (folders.checkpoints / "ckpt-00000007").symlink_to(tmp_path / "elsewhere")
    stay = [*others, "ckpt-00000000", "ckpt-00000006", "ckpt-00000007", "ckpt-00000002"]
    folders.prune(keep=2, spared=2)
    assert left(folders) == sorted([*stay, "ckpt-99999999", "ckpt-100000000"])
    folders.prune(keep=1, spared=2)
    assert left(folders) == sorted([*stay, "ckpt-100000000"])


def test_a_checkpoint_with_context_models_is_the_runs_own(folders):
    for step in (1, 2):
        checkpoint(folders, f"ckpt-{step:08d}", "context.npz", "context_code.npz", "context_mask.npz")
    folders.prune(keep=1, spared=0)
    assert left(folders) == ["ckpt-00000002"]


def test_what_a_killed_run_left_is_removed(folders):
    for name in ("ckpt-00000003", ".ckpt-00000002.partial", ".ckpt-00000001.old", ".ckpt-mine.partial"):
        checkpoint(folders, name)
    folders.prune(keep=1, spared=0)
    assert left(folders) == [".ckpt-mine.partial", "ckpt-00000003"]


def test_a_checkpoint_that_cannot_be_deleted_is_a_warning(folders, monkeypatch, capsys):
    for step in (1, 2):
        checkpoint(folders, f"ckpt-{step:08d}")

    def refuse(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    folders.prune(keep=1, spared=0)
    assert "warning: an old checkpoint cannot be deleted: " in capsys.readouterr().err
