"""An adapter on the Hugging Face hub, or on a server that speaks its protocol (``HF_ENDPOINT``)."""

from pathlib import Path

from das_lib.adml.adapter import CONFIG_FILE, WEIGHTS_FILE
from das_lib.errors import DasError


def push(folder: Path, repository: str, *, private: bool = True) -> str:
    """Upload a PEFT folder with its model card, in one commit; its address.

    Args:
        folder: The adapter.
        repository: ``owner/name``; made if it does not exist.
        private: Whether a new repository is; an existing one stays as it is.

    Raises:
        DasError: the folder is no adapter, or the hub refuses.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    lacking = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if lacking:
        raise DasError(f"FOLDER: {folder} has no {lacking[0]}; name the PEFT folder of an adapter")
    hub = HfApi(library_name="das-asr")
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Adapter trained by DAS"
        )
    except HFValidationError as error:
        raise DasError(f"REPOSITORY: {error}; give it as owner/name") from error
    except (HfHubHTTPError, HTTPError, LocalTokenNotFoundError) as error:
        raise DasError(
            f"{hub.endpoint} does not take {repository}: {error}; check the name, and that "
            "HF_TOKEN holds a token that may write there"
        ) from error
    return f"{hub.endpoint}/{repository}"
