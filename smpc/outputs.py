"""All that a run writes, checked before it computes anything: that it can be written, and that
nothing is written in the place of anything else; and, at the end, saved whatever becomes of one."""

import pathlib
from collections.abc import Callable

from smpc import checkpoint, mnist, report
from smpc.audit.transcript import values_of
from smpc.files import FileError, check_replaceable, check_writable, named, prepare_folder


def check(args) -> pathlib.Path:
    """Check all files that a run of train_encrypted.py will write.

    Args:
        args: of the script: `save_model` and `transcript` (paths or None), `out`, and what
            `_kept_from` takes.
    Returns:
        the folder of the results, made if need be.
    Raises:
        FileError: one cannot be written, or would be in the place of a link, a device, a folder,
            another one, or a file of the data set or of the checkpoint.
    """
    written = [("--out", pathlib.Path(args.out) / name) for name in report.FILES]
    if args.transcript:
        path = pathlib.Path(args.transcript)
        written += [("--transcript", path), ("--transcript", values_of(path))]
    if args.save_model:
        written.append(("--save-model", pathlib.Path(args.save_model)))
    check_files(written, _kept_from(args))
    return prepare_folder(args.out)


def check_files(written: list[tuple[str, pathlib.Path]], kept: list[tuple[str, pathlib.Path]]):
    """Check files that will be written.

    Args:
        written: each with its option; `kept`: that none may write over, each with what it is.
    Raises:
        FileError: one cannot be, or would be in the place of a link, a device, a folder or another.
    """
    others = [*kept]
    for option, path in written:
        with named(f"{option} {path}"):
            check_replaceable(path)
        for what, other in others:
            if _clash(path, other):
                raise FileError(f"{option} {path}: is in the place of {what} {other}")
        others.append((option, path))
    for option, path in reversed(written):  # the folder of results is made last
        with named(f"{option} {path}"):
            check_writable(path)


def _kept_from(args):
    """(what, path) of what a run must not write over: `data_dir`, `checkpoint`, `n_workers`, and
    what `kept_on_hosts` takes."""
    raw = pathlib.Path(args.data_dir) / "MNIST" / "raw"
    kept = [("the data", raw / f"{name}{end}") for name in mnist.SHA256 for end in ("", ".gz")]
    if args.checkpoint:
        folder = pathlib.Path(args.checkpoint)
        names = [*checkpoint.FILES, *(f"worker{i + 1}" for i in range(args.n_workers))]
        kept += [("the checkpoint's", folder / name) for name in names]
    return kept + (kept_on_hosts(args) if args.parties else [])


def kept_on_hosts(args) -> list[tuple[str, pathlib.Path]]:
    """Likewise, of the server's: `parties`, `plan` (or None), and `home`, the folder with its
    key."""
    kept = [("the parties' file", pathlib.Path(args.parties))]
    kept += [("the plan", pathlib.Path(args.plan))] if args.plan else []
    return kept + [("the server's", file) for file in pathlib.Path(args.home).glob("*.pem")]


def _clash(path, other):
    """Whether two paths are the same file's, by whatever way, or one is the other's folder."""
    with named(path):
        a, b = (file.parent.resolve() / file.name for file in (path, other))
        if a == b or a in b.parents or b in a.parents:
            return True
        return path.exists() and other.exists() and path.samefile(other)


def save(args, *saves: Callable[[], None]):
    """Call each, also after one that could not be saved.

    Args:
        args: of the script: `out` and `checkpoint`, for what to do.
    Raises:
        FileError: of all that could not be, in one line.
    """
    failed = []
    for save in saves:
        try:
            save()
        except FileError as error:
            failed.append(str(error))
    if failed:
        line = f"{'; '.join(failed)}; what could be saved of the results is in {args.out}/"
        if args.checkpoint:
            line += f", and the weights stay in {args.checkpoint}/: save them with --resume"
        raise FileError(line)
