"""The machine images that kup offers, and the public parameters of SSM that name them."""

import dataclasses
import functools
import hashlib
import time

from localstack.utils.patch import patch
from moto.ec2.models.amis import Ami, AmiBackend
from moto.ssm.models import Parameter, ParameterDict

AMAZON, DEBIAN, CANONICAL = "137112412989", "136693071363", "099720109477"


@dataclasses.dataclass(frozen=True)
class Image:
    parameter: str
    name: str
    owner: str
    architecture: str
    root: str
    disk: int
    description: str

    def id(self, region: str) -> str:
        """An image has another id in each region, and the same at each start."""
        return "ami-0" + hashlib.sha256(f"{region} {self.name}".encode()).hexdigest()[:16]


def debian(release: int, codename: str, serial: str, architecture: str) -> Image:
    return Image(
        parameter=f"/aws/service/debian/release/{release}/latest/{architecture}",
        name=f"debian-{release}-{architecture}-{serial}",
        owner=DEBIAN,
        architecture={"amd64": "x86_64"}.get(architecture, architecture),
        root="/dev/xvda",
        disk=8,
        description=f"Debian {release} ({codename}), {architecture}",
    )


def ubuntu(version: str, codename: str, serial: str, architecture: str) -> Image:
    return Image(
        parameter=f"/aws/service/canonical/ubuntu/server/{version}/stable/current/{architecture}/hvm/ebs-gp3/ami-id",
        name=f"ubuntu/images/hvm-ssd-gp3/ubuntu-{codename}-{version}-{architecture}-server-{serial}",
        owner=CANONICAL,
        architecture={"amd64": "x86_64"}.get(architecture, architecture),
        root="/dev/sda1",
        disk=8,
        description=f"Canonical, Ubuntu, {version}, {architecture} {codename} image",
    )


def amazon(serial: str, architecture: str) -> Image:
    return Image(
        parameter=f"/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{architecture}",
        name=f"al2023-ami-2023.{serial}-{architecture}",
        owner=AMAZON,
        architecture=architecture,
        root="/dev/xvda",
        disk=8,
        description=f"Amazon Linux 2023 AMI 2023.{serial} {architecture} HVM kernel-6.1",
    )


# Names have the form that their makers give them; the serial numbers are made up.
IMAGES = [
    *(debian(13, "trixie", "20260101-1000", a) for a in ("amd64", "arm64")),
    *(debian(12, "bookworm", "20260101-1000", a) for a in ("amd64", "arm64")),
    *(ubuntu("24.04", "noble", "20260101", a) for a in ("amd64", "arm64")),
    *(amazon("10.20260101.0-kernel-6.1", a) for a in ("x86_64", "arm64")),
]


class OwnedImage(Ami):
    """An image with a disk that says what real ones do: moto's are 15 GB, of an old type, and stay behind."""

    def __init__(self, backend, image: Image):
        self.disk = image.disk
        super().__init__(
            backend,
            image.id(backend.region_name),
            name=image.name,
            description=image.description,
            owner_id=image.owner,
            owner_alias="amazon" if image.owner == AMAZON else None,
            public=True,
            virtualization_type="hvm",
            architecture=image.architecture,
            image_location=f"{image.owner}/{image.name}",
            hypervisor="xen",
            root_device_type="ebs",
            root_device_name=image.root,
            creation_date="2026-01-01T00:00:00.000Z",
            region_name=backend.region_name + "a",
        )

    @property
    def block_device_mappings(self):
        disk = {"SnapshotId": self.ebs_snapshot.id, "VolumeSize": self.disk, "DeleteOnTermination": True, "VolumeType": "gp3", "Encrypted": False}
        return [{"DeviceName": self.root_device_name, "Ebs": disk}]


@functools.cache
def mend():
    @patch(AmiBackend._load_amis)
    def load(original, self):
        original(self)
        for image in IMAGES:
            mine = OwnedImage(self, image)
            self.amis[mine.id] = mine

    # moto reads its own tables of parameters when the first name below their path is asked for. Ours are as few as that they
    # can stand there from the beginning, which is what listing by path needs.
    @patch(ParameterDict.__init__)
    def init(original, self, account_id, region_name):
        original(self, account_id, region_name)
        add(self)

    @patch(ParameterDict._load_latest_amis)
    def load_amazon(original, self):
        original(self)
        for image in IMAGES:
            if image.owner == AMAZON:
                self.pop(image.parameter, None)
        add(self)


def add(parameters: ParameterDict):
    for image in IMAGES:
        if dict.__contains__(parameters, image.parameter):
            continue
        parameter = Parameter(
            account_id=parameters.account_id,
            name=image.parameter,
            value=image.id(parameters.region_name),
            parameter_type="String",
            description=None,
            allowed_pattern=None,
            keyid=None,
            last_modified_date=time.time(),
            version=1,
            data_type="aws:ec2:image",
        )
        # Not through its own lookup, which would load moto's tables.
        dict.__setitem__(parameters, image.parameter, [parameter])
