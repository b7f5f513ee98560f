// Local volumes for Kubernetes: directories on the nodes' own disks, made when a pod that claims one is scheduled, removed with the claim.
//
//	local-storage serve        the provisioner: watches claims and volumes; one replica, anywhere
//	local-storage make DIR     makes a volume's directory       } in a short-lived pod on the node
//	local-storage remove DIR   removes it and all that is in it } that has the volume
//
// One executable is provisioner and helper, so that nothing needs a shell or another image.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

var version = "unknown"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "serve":
		return serve()
	case len(args) == 1 && args[0] == "version":
		fmt.Println(version)
		return nil
	case len(args) == 2 && args[0] == "make":
		return makeDirectory(args[1])
	case len(args) == 2 && args[0] == "remove":
		return os.RemoveAll(args[1])
	}
	return fmt.Errorf("usage: local-storage serve | make DIR | remove DIR | version")
}

// makeDirectory makes a directory that any user may write to, as a pod may run as any. Its parent is root's alone: a pod sees only the
// volume that it claimed. Doing it twice changes nothing.
func makeDirectory(path string) error {
	if err := os.Chmod(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o777); err != nil && !os.IsExist(err) {
		return err
	}
	// The umask may have taken bits away.
	return os.Chmod(path, 0o777)
}
