package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const (
	// provisionerName is what a StorageClass names.
	provisionerName = "kup.dev/local-storage"
	// nodeAnnotation on a volume is the Node that has it.
	nodeAnnotation = "kup.dev/node"
)

type provisioner struct {
	client kubernetes.Interface
	helper helper
	// root is the directory on every node that holds the volumes.
	root string
}

// serve provisions and removes volumes until it is told to stop.
func serve() error {
	settings := map[string]string{}
	for _, name := range []string{"ROOT", "IMAGE", "NAMESPACE", "SERVICE_ACCOUNT"} {
		value := os.Getenv(name)
		if value == "" {
			return fmt.Errorf("%s is not set", name)
		}
		settings[name] = value
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	klog.InfoS("local-storage", "version", version, "root", settings["ROOT"])
	p := &provisioner{
		client: client,
		root:   settings["ROOT"],
		helper: helper{
			pods:           client.CoreV1().Pods(settings["NAMESPACE"]),
			root:           settings["ROOT"],
			image:          settings["IMAGE"],
			serviceAccount: settings["SERVICE_ACCOUNT"],
		},
	}
	// Its Deployment never runs two at once, so nobody has to be elected.
	controller.NewProvisionController(ctx, client, provisionerName, p, controller.LeaderElection(false)).Run(ctx)
	return nil
}

// Provision makes a directory on the node that the scheduler chose.
func (p *provisioner) Provision(ctx context.Context, options controller.ProvisionOptions) (*core.PersistentVolume, controller.ProvisioningState, error) {
	fail := func(err error) (*core.PersistentVolume, controller.ProvisioningState, error) {
		return nil, controller.ProvisioningFinished, err
	}
	claim := options.PVC
	if claim.Spec.Selector != nil {
		return fail(errors.New("a claim with a selector can't have a volume made for it"))
	}
	for _, mode := range claim.Spec.AccessModes {
		if mode != core.ReadWriteOnce && mode != core.ReadWriteOncePod {
			return fail(fmt.Errorf("%s is not possible: a volume on one node's disk is ReadWriteOnce or ReadWriteOncePod", mode))
		}
	}
	if options.SelectedNodeName == "" {
		return fail(fmt.Errorf("the StorageClass %s must have volumeBindingMode WaitForFirstConsumer", options.StorageClass.Name))
	}
	node, err := p.client.CoreV1().Nodes().Get(ctx, options.SelectedNodeName, meta.GetOptions{})
	if apierrors.IsNotFound(err) {
		// It has gone since it was chosen: the scheduler is to choose again.
		return nil, controller.ProvisioningReschedule, err
	}
	if err != nil {
		return fail(err)
	}
	hostname, ok := node.Labels[core.LabelHostname]
	if !ok {
		return fail(fmt.Errorf("the Node %s has no label %s", node.Name, core.LabelHostname))
	}
	// The volume's own name makes it unique; the rest is for people who look at the disk.
	directory := path.Join(p.root, strings.Join([]string{options.PVName, claim.Namespace, claim.Name}, "_"))
	if err := p.helper.run(ctx, "make", directory, node.Name, options.PVName); err != nil {
		// The helper may still be running: the same call finds it again.
		return nil, controller.ProvisioningInBackground, err
	}
	filesystem := core.PersistentVolumeFilesystem
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: options.PVName, Annotations: map[string]string{nodeAnnotation: node.Name}},
		Spec: core.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   claim.Spec.AccessModes,
			MountOptions:                  options.StorageClass.MountOptions,
			VolumeMode:                    &filesystem,
			Capacity:                      core.ResourceList{core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage]},
			PersistentVolumeSource:        core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: directory}},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{{
				MatchExpressions: []core.NodeSelectorRequirement{{Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{hostname}}},
			}}}},
		},
	}, controller.ProvisioningFinished, nil
}

// Delete removes the directory. A volume of a node that has left the cluster went with that node's disk.
func (p *provisioner) Delete(ctx context.Context, volume *core.PersistentVolume) error {
	node, ok := volume.Annotations[nodeAnnotation]
	if !ok || volume.Spec.Local == nil {
		return &controller.IgnoredError{Reason: "it was not made by this provisioner"}
	}
	directory := volume.Spec.Local.Path
	if path.Dir(directory) != path.Clean(p.root) || !strings.HasPrefix(path.Base(directory), volume.Name+"_") {
		return fmt.Errorf("%s is no directory that this provisioner made for %s; nothing is removed", directory, volume.Name)
	}
	if _, err := p.client.CoreV1().Nodes().Get(ctx, node, meta.GetOptions{}); err != nil {
		if apierrors.IsNotFound(err) {
			klog.InfoS("The volume's node is gone, and its disk with it", "volume", volume.Name, "node", node)
			return nil
		}
		return err
	}
	return p.helper.run(ctx, "remove", directory, node, volume.Name)
}
