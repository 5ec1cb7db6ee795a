"""Artifacts on the Hugging Face hub. huggingface_hub is imported only when a repository is asked for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trimtab.errors import StoreError


def download(repo: str, revision: str | None, files: Sequence[str]) -> Path:
    """Fetch the named files of a repository into the hub's cache, or find them there, and return the folder.

    Raises:
        StoreError: no such repository or revision, no permission, or no network and nothing in the cache.
    """
    from huggingface_hub import snapshot_download

    fix = "check the name, log in with `hf auth login` if it is private, or download it elsewhere and give the folder"
    asked = f"{repo} at revision {revision}" if revision else repo
    with _hub_errors(f"{repo} is no folder here, and trimtab cannot fetch {asked}", fix):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(files)))


def upload(folder: Path, repo: str, private: bool, token: str | None, files: Sequence[str]) -> str:
    """Upload the files of a folder in one commit, deleting those of ``files`` that it lacks, and return the commit's URL.

    Raises:
        StoreError: no network or permission, or the repository is public where a private one was asked for.
    """
    from huggingface_hub import HfApi

    with _hub_errors(f"cannot upload to {repo}", "check the name (owner/name), the network and that the token may write"):
        api = HfApi(token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        # an existing repository keeps its visibility without a word
        if private and not api.model_info(repo).private:
            raise StoreError(f"{repo} exists and is public; pass private=False to publish there, or choose another repository")
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(files),
            delete_patterns=list(files),
            commit_message="Upload steering",
        )
    return commit.commit_url


@contextmanager
def _hub_errors(what: str, fix: str) -> Iterator[None]:
    # HTTPError is the base of the client's errors, a lost connection among them; the hub names it, whichever client it uses
    from huggingface_hub.errors import EntryNotFoundError, HTTPError  # pyright: ignore[reportPrivateImportUsage]

    try:
        yield
    except (HTTPError, EntryNotFoundError, OSError, ValueError) as cause:
        raise StoreError(f"{what}: {' '.join(str(cause).split())[:300]}; {fix}") from cause
