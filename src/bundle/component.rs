//! What a bundle consists of: each component's files, whom they are for, and how they are made from source.
//!
//! Versions are not here: `config/releases.yaml` is the only place that names one.

use super::manifest::Role;

/// A part of the bundle that is built, or published, as one.
#[derive(Debug)]
pub struct Component {
    /// Its name in `config/releases.yaml`.
    pub name: &'static str,
    /// How its files are made from source.
    pub make: Make,
    /// Its files.
    pub items: &'static [Item],
    /// Seconds that a build from nothing takes on two cores, as measured; shown while it runs.
    pub seconds: u32,
}

/// How a component is made from source.
#[derive(Debug)]
pub enum Make {
    /// `go build`.
    Go {
        /// Needs a C compiler and static libraries; linked statically all the same.
        cgo: bool,
        /// Build tags.
        tags: &'static [&'static str],
        /// Variables that carry the version: the linker's `-X` arguments, with `{version}`, `{major}` and `{minor}`.
        stamps: &'static [&'static str],
    },
    /// One C file, below the directory of the module that provides the item's package.
    C {
        /// Its path.
        source: &'static str,
    },
}

/// One file of the bundle.
#[derive(Debug)]
pub struct Item {
    /// The file's name, which is what it is called on a machine.
    pub name: &'static str,
    /// The Go package (for C: the module) it is made from.
    pub package: &'static str,
    /// Where it belongs.
    pub place: Place,
    /// Who needs it.
    pub role: Role,
}

/// Where a file belongs in the bundle's directory.
#[derive(Debug)]
pub enum Place {
    /// `bin/`.
    Bin,
    /// `cni/`.
    Cni,
    /// `images/`, as an archive of one image.
    Image(Image),
}

/// An image as upstream publishes it, and how kup makes the same from the bare executable.
#[derive(Debug)]
pub struct Image {
    /// Its name up to the tag's version (`…/coredns:v`).
    pub reference: &'static str,
    /// Arguments when a pod gives none.
    pub command: &'static [&'static str],
    /// The numeric user it runs as, empty for root.
    pub user: &'static str,
    /// The executable may bind ports below 1024 without root.
    pub binds_low_ports: bool,
}

impl Item {
    /// Its path in the bundle's directory.
    pub fn path(&self) -> String {
        match self.place {
            Place::Bin => format!("bin/{}", self.name),
            Place::Cni => format!("cni/{}", self.name),
            Place::Image(_) => format!("images/{}.tar", self.name),
        }
    }

    /// The mode of its file.
    pub fn mode(&self) -> u32 {
        if matches!(self.place, Place::Image(_)) { 0o644 } else { 0o755 }
    }
}

const fn bin(name: &'static str, package: &'static str, role: Role) -> Item {
    Item { name, package, place: Place::Bin, role }
}

const fn cni(name: &'static str, package: &'static str) -> Item {
    Item { name, package, place: Place::Cni, role: Role::Both }
}

/// All components, those that take longest to build first.
pub const COMPONENTS: &[Component] = &[
    Component {
        name: "kubernetes",
        make: Make::Go {
            cgo: false,
            tags: &[],
            stamps: &[
                "k8s.io/component-base/version.gitVersion=v{version}",
                "k8s.io/component-base/version.gitMajor={major}",
                "k8s.io/component-base/version.gitMinor={minor}",
                "k8s.io/component-base/version.gitTreeState=clean",
                // A module doesn't say which commit it was; without this the server would show git's unexpanded placeholder.
                "k8s.io/component-base/version.gitCommit=unknown",
                "k8s.io/client-go/pkg/version.gitVersion=v{version}",
                "k8s.io/client-go/pkg/version.gitMajor={major}",
                "k8s.io/client-go/pkg/version.gitMinor={minor}",
                "k8s.io/client-go/pkg/version.gitTreeState=clean",
                "k8s.io/client-go/pkg/version.gitCommit=unknown",
            ],
        },
        items: &[
            bin("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", Role::Master),
            bin("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", Role::Master),
            bin("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", Role::Master),
            bin("kubelet", "k8s.io/kubernetes/cmd/kubelet", Role::Both),
            bin("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", Role::Both),
            bin("kubectl", "k8s.io/kubernetes/cmd/kubectl", Role::Client),
        ],
        seconds: 540,
    },
    Component {
        name: "cloud-provider-aws",
        make: Make::Go {
            cgo: false,
            tags: &[],
            stamps: &["k8s.io/component-base/version.gitVersion=v{version}", "main.gitVersion=v{version}"],
        },
        items: &[
            bin("aws-cloud-controller-manager", "k8s.io/cloud-provider-aws/cmd/aws-cloud-controller-manager", Role::Master),
            bin("ecr-credential-provider", "k8s.io/cloud-provider-aws/cmd/ecr-credential-provider", Role::Both),
        ],
        seconds: 214,
    },
    Component {
        name: "coredns",
        make: Make::Go { cgo: false, tags: &[], stamps: &["github.com/coredns/coredns/coremain.GitCommit=v{version}"] },
        items: &[Item {
            name: "coredns",
            package: "github.com/coredns/coredns",
            place: Place::Image(Image {
                reference: "registry.k8s.io/coredns/coredns:v",
                command: &[],
                user: "65532:65532",
                binds_low_ports: true,
            }),
            role: Role::Image,
        }],
        seconds: 151,
    },
    Component {
        name: "metrics-server",
        make: Make::Go {
            cgo: false,
            tags: &[],
            stamps: &["k8s.io/client-go/pkg/version.gitVersion=v{version}", "k8s.io/client-go/pkg/version.gitCommit=unknown"],
        },
        items: &[Item {
            name: "metrics-server",
            package: "sigs.k8s.io/metrics-server/cmd/metrics-server",
            place: Place::Image(Image {
                reference: "registry.k8s.io/metrics-server/metrics-server:v",
                command: &[],
                user: "65534",
                binds_low_ports: false,
            }),
            role: Role::Image,
        }],
        seconds: 121,
    },
    Component {
        name: "flannel",
        make: Make::Go {
            // Its udp backend is C.
            cgo: true,
            tags: &["netgo", "osusergo"],
            stamps: &["github.com/flannel-io/flannel/pkg/version.Version=v{version}"],
        },
        items: &[bin("flanneld", "github.com/flannel-io/flannel", Role::Both)],
        seconds: 108,
    },
    Component {
        name: "containerd",
        make: Make::Go {
            cgo: false,
            tags: &["no_btrfs", "no_devmapper", "no_zfs"],
            stamps: &["github.com/containerd/containerd/v2/version.Version=v{version}"],
        },
        items: &[
            bin("containerd", "github.com/containerd/containerd/v2/cmd/containerd", Role::Both),
            bin("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", Role::Both),
            bin("ctr", "github.com/containerd/containerd/v2/cmd/ctr", Role::Both),
        ],
        seconds: 76,
    },
    // kup's own: its source is in its folder below scripts/bundle/.
    Component {
        name: "local-storage",
        make: Make::Go { cgo: false, tags: &[], stamps: &["main.version=v{version}"] },
        items: &[Item {
            name: "local-storage",
            package: "kup.dev/bundle/local-storage",
            place: Place::Image(Image {
                reference: "kup.dev/local-storage:v",
                command: &["serve"],
                user: "65532:65532",
                binds_low_ports: false,
            }),
            role: Role::Image,
        }],
        seconds: 60,
    },
    Component {
        name: "etcd",
        make: Make::Go { cgo: false, tags: &[], stamps: &[] },
        items: &[
            bin("etcd", "go.etcd.io/etcd/server/v3", Role::Master),
            bin("etcdctl", "go.etcd.io/etcd/etcdctl/v3", Role::Master),
            bin("etcdutl", "go.etcd.io/etcd/etcdutl/v3", Role::Master),
        ],
        seconds: 37,
    },
    Component {
        name: "cri-tools",
        make: Make::Go { cgo: false, tags: &[], stamps: &["sigs.k8s.io/cri-tools/pkg/version.Version=v{version}"] },
        items: &[bin("crictl", "sigs.k8s.io/cri-tools/cmd/crictl", Role::Both)],
        seconds: 40,
    },
    Component {
        name: "runc",
        // Without seccomp no pod starts: the kubelet asks for the runtime's default profile.
        make: Make::Go { cgo: true, tags: &["seccomp", "netgo", "osusergo"], stamps: &["main.version={version}"] },
        items: &[bin("runc", "github.com/opencontainers/runc", Role::Both)],
        seconds: 18,
    },
    Component {
        name: "cni-plugins",
        make: Make::Go {
            cgo: false,
            tags: &[],
            stamps: &["github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=v{version}"],
        },
        items: &[
            cni("bridge", "github.com/containernetworking/plugins/plugins/main/bridge"),
            cni("loopback", "github.com/containernetworking/plugins/plugins/main/loopback"),
            cni("host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local"),
            cni("portmap", "github.com/containernetworking/plugins/plugins/meta/portmap"),
            cni("firewall", "github.com/containernetworking/plugins/plugins/meta/firewall"),
            cni("bandwidth", "github.com/containernetworking/plugins/plugins/meta/bandwidth"),
        ],
        seconds: 10,
    },
    Component {
        name: "pause",
        make: Make::C { source: "build/pause/linux/pause.c" },
        items: &[Item {
            name: "pause",
            package: "k8s.io/kubernetes",
            place: Place::Image(Image {
                reference: "registry.k8s.io/pause:",
                command: &[],
                user: "65535:65535",
                binds_low_ports: false,
            }),
            role: Role::Image,
        }],
        seconds: 1,
    },
    // kup's own. Late, because AWS's SDK, which takes by far the longest of it, has been compiled for cloud-provider-aws by then.
    Component {
        name: "node-approver",
        make: Make::Go { cgo: false, tags: &[], stamps: &["main.version=v{version}"] },
        items: &[bin("node-approver", "kup.dev/bundle/node-approver", Role::Master)],
        seconds: 20,
    },
    // Last, because nearly all of its packages have been compiled for Kubernetes by then.
    Component {
        name: "agnhost",
        make: Make::Go { cgo: false, tags: &[], stamps: &["main.Version={version}"] },
        items: &[Item {
            name: "agnhost",
            package: "k8s.io/kubernetes/test/images/agnhost",
            place: Place::Image(Image {
                reference: "registry.k8s.io/e2e-test-images/agnhost:",
                command: &["pause"],
                user: "",
                binds_low_ports: false,
            }),
            role: Role::Test,
        }],
        seconds: 8,
    },
];

/// The component of that name.
pub fn named(name: &str) -> Option<&'static Component> {
    COMPONENTS.iter().find(|c| c.name == name)
}
