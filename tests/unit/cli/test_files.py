"""Which file and which fabric a command means, found without loading anything heavy."""

import pytest

from vnet.base.errors import InputError, UsageError
from vnet.cli import files


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VNET_FILE", raising=False)
    return tmp_path


def test_a_file_that_is_given_is_meant(directory):
    (directory / "vnet.yaml").write_text("name: other")
    assert files.find(["shop.vnet.yaml"]) == ["shop.vnet.yaml"]


def test_the_environment_names_a_file(monkeypatch):
    monkeypatch.setenv("VNET_FILE", "/etc/shop.vnet.yaml")
    assert files.find([]) == ["/etc/shop.vnet.yaml"]


def test_the_only_candidate_of_the_directory_is_meant(directory):
    (directory / "shop.vnet.yaml").write_text("name: shop")
    assert files.find([]) == ["shop.vnet.yaml"]


def test_several_candidates_are_no_guess(directory):
    (directory / "a.vnet.yaml").touch()
    (directory / "b.vnet.yaml").touch()
    with pytest.raises(UsageError, match=r"a\.vnet\.yaml, b\.vnet\.yaml"):
        files.find([])


def test_where_several_files_lie_the_only_fabric_that_is_up_is_meant(directory):
    (directory / "a.vnet.yaml").touch()
    (directory / "b.vnet.yaml").touch()
    assert files.meant(None, []) == "-"


def test_no_candidate_is_explained():
    with pytest.raises(UsageError, match="-f FILE"):
        files.read([])


def test_several_files_are_what_a_file_is_that_includes_them(directory, monkeypatch):
    (directory / "a.yaml").write_text("networks: {}\ninclude: parts/c.yaml")
    (directory / "b.yaml").write_text("name: shop\nvms: {a: {image: $IMAGE}}")
    (directory / "parts").mkdir()
    (directory / "parts" / "c.yaml").write_text("groups: {}")
    monkeypatch.setenv("IMAGE", "micro")
    sent = files.source(["a.yaml", "b.yaml"], "shop")
    assert list(sent["included"]) == ["a.yaml", "b.yaml", "parts/c.yaml"]
    assert sent["env"] == {"IMAGE": "micro"}
    assert files.meant(None, ["a.yaml", "b.yaml"]) == "shop"


def test_a_file_that_is_included_and_not_there_is_left_to_the_loader(directory):
    (directory / "a.yaml").write_text("name: a\ninclude: [nowhere.yaml]")
    assert files.read(["a.yaml"]).included == {}


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"cannot read nowhere\.yaml: No such file"):
        files.read(["nowhere.yaml"])


def test_only_variables_that_the_text_mentions_leave_the_client():
    text = "a: ${IMAGE:-micro}\nb: $SIZE\nc: ${MISSING}"
    given = {"IMAGE": "x", "SIZE": "1", "SECRET": "y"}
    assert files.mentioned(text, given) == {"IMAGE": "x", "SIZE": "1"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("name: shop\n", "shop"),
        ("# a comment\nname:   'shop-2'  # why\n", "shop-2"),
        ('{name: "shop", vms: {}}', "shop"),
        ("vms:\n  name: {}\n", "file"),
    ],
)
def test_the_fabric_is_called_what_the_file_says(text, name):
    assert files.fabric_name(files.Given("dir/file.vnet.yaml", text)) == name


def test_a_name_that_is_given_is_meant(directory):
    (directory / "shop.vnet.yaml").write_text("name: shop")
    assert files.meant("other", []) == "other"
    assert files.meant(None, []) == "shop"


def test_without_a_file_the_only_fabric_is_meant():
    assert files.meant(None, []) == "-"
