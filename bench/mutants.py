"""Mutation score of the files that pyproject.toml's [tool.mutmut] names: killed / total for each; exit 1 under 80%.

mutmut makes the mutants and runs the unit tests that reach each one; this draws the sample, and counts. Everything
happens in mutants/, a copy of the tree; mutants/mutmut.log holds what mutmut said.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

ROOT = Path(__file__).parents[1]
FLOOR = 0.80
# a mutant that hangs or crashes the tests is noticed too
CAUGHT = ("killed", "timeout", "segfault")


def mutants_of(path: Path) -> list[str]:
    """The names of all mutants that mutmut makes of a file."""
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import get_mutant_name

    made = mutate_file_contents(str(path), path.read_text(encoding="utf-8"))
    return [get_mutant_name(path, name) for name in made.mutant_names]


def outcomes(path: Path) -> dict[str, str]:
    """What became of each mutant of a file so far, by name."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.stats import status_by_exit_code

    data = SourceFileMutationData(path=path)
    try:
        data.load()
    except ValueError:  # mutmut is writing it
        return {}
    return {name: status_by_exit_code[code] for name, code in data.exit_code_by_key.items() if code is not None}


def run(chosen: dict[Path, list[str]], everything: bool) -> None:
    """Has mutmut try the chosen mutants, with a bar; exits with its output when it fails."""
    names = [] if everything else [name for some in chosen.values() for name in some]
    total = sum(map(len, chosen.values()))
    shutil.rmtree("mutants", ignore_errors=True)  # mutmut keeps what it copied once, whatever changed since
    Path("mutants").mkdir()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with open("mutants/mutmut.log", "wb") as log, Progress(*columns) as bar:
        command = [str(Path(sys.executable).with_name("mutmut")), "run", *names]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        task = bar.add_task("the tests without mutants", total=total)
        try:
            while process.poll() is None:
                time.sleep(2)
                done = sum(len(outcomes(path).keys() & some) for path, some in chosen.items())
                bar.update(task, completed=done, description="mutants" if done else "the tests without mutants")
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        text = Path("mutants/mutmut.log").read_text(encoding="utf-8", errors="replace")
        sys.exit(f"mutmut failed:\n{text[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", help="only these (patterns, such as 'repro/evals/*'); default: all of them")
    parser.add_argument("--sample", type=int, default=60, help="mutants a file (default 60)")
    parser.add_argument("--all", action="store_true", help="every mutant")
    parser.add_argument("--seed", type=int, default=0, help="decides the sample (default 0)")
    parser.add_argument("--survivors", action="store_true", help="also show the change that each survivor is")
    asked = parser.parse_args()
    os.chdir(ROOT)
    from mutmut.utils.file_utils import walk_mutatable_files

    chosen: dict[Path, list[str]] = {}
    for path in sorted(walk_mutatable_files()):
        if not asked.files or any(fnmatch(str(path), pattern) for pattern in asked.files):
            names = mutants_of(path)
            if not names:
                continue
            count = len(names) if asked.all else min(asked.sample, len(names))
            chosen[path] = random.Random(f"{asked.seed}/{path}").sample(names, count)
    run(chosen, asked.all and not asked.files)
    under = []
    print(f"{'file':<32}{'killed':>10}{'share':>8}  rest")
    for path, names in chosen.items():
        found = outcomes(path)
        counts = Counter(found.get(name, "not tried") for name in names)
        killed = sum(counts.pop(kind, 0) for kind in CAUGHT)
        rest = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))
        print(f"{path!s:<32}{f'{killed}/{len(names)}':>10}{killed / len(names):>8.0%}  {rest}")
        if killed < FLOOR * len(names):
            under.append(str(path))
        if asked.survivors:
            sys.stdout.flush()
            for name in sorted(name for name in names if found.get(name) not in CAUGHT):
                subprocess.run([str(Path(sys.executable).with_name("mutmut")), "show", name], check=False)
    if under:
        sys.exit(f"under {FLOOR:.0%}: {', '.join(under)}")


if __name__ == "__main__":
    main()
