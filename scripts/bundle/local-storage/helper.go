package main

import (
	"context"
	"fmt"
	"path"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/ptr"
)

const (
	// deadline for a helper: a pod takes a second to start, a large directory some seconds to be removed.
	deadline = 2 * time.Minute
	// poll is the pause between looks at a helper.
	poll = 100 * time.Millisecond
	// inside is where a helper sees the directory of volumes.
	inside = "/volumes"
)

// helper runs this program for one directory, in a pod on the node that has the disk.
type helper struct {
	pods           typed.PodInterface
	root           string
	image          string
	serviceAccount string
}

// run makes or removes a directory on a node. A pod that an earlier call left is taken up again, so that calling it twice is harmless.
func (h helper) run(ctx context.Context, verb, directory, node, volume string) error {
	pod := h.pod(verb, directory, node, volume)
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	if _, err := h.pods.Create(ctx, pod, meta.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	ended, last := false, "it is not there yet"
	wait.PollUntilContextCancel(ctx, poll, false, func(ctx context.Context) (bool, error) {
		seen, e := h.pods.Get(ctx, pod.Name, meta.GetOptions{})
		if e != nil {
			last = e.Error()
			return apierrors.IsNotFound(e), nil
		}
		last = describe(seen)
		ended = seen.Status.Phase == core.PodSucceeded
		return ended || seen.Status.Phase == core.PodFailed, nil
	})
	// Whatever came of it, the next call starts anew. Not bound to the deadline, which may be over.
	cleanup, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer done()
	if e := h.pods.Delete(cleanup, pod.Name, meta.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); e != nil && !apierrors.IsNotFound(e) {
		return e
	}
	if !ended {
		return fmt.Errorf("cannot %s %s on %s: the pod %s did not succeed: %s", verb, directory, node, pod.Name, last)
	}
	return nil
}

// describe says how a helper is, in its own words if it has any.
func describe(pod *core.Pod) string {
	for _, container := range pod.Status.ContainerStatuses {
		if state := container.State.Terminated; state != nil {
			return fmt.Sprintf("%s (exit code %d): %s", state.Reason, state.ExitCode, state.Message)
		}
		if state := container.State.Waiting; state != nil && state.Message != "" {
			return fmt.Sprintf("%s: %s", state.Reason, state.Message)
		}
	}
	return fmt.Sprintf("it is %s %s", pod.Status.Phase, pod.Status.Message)
}

func (h helper) pod(verb, directory, node, volume string) *core.Pod {
	capabilities := &core.Capabilities{Drop: []core.Capability{"ALL"}}
	if verb == "remove" {
		// Files belong to whatever users the pods ran as.
		capabilities.Add = []core.Capability{"DAC_OVERRIDE", "FOWNER"}
	}
	return &core.Pod{
		ObjectMeta: meta.ObjectMeta{Name: verb + "-" + volume, Labels: map[string]string{"app": "local-storage-helper"}},
		Spec: core.PodSpec{
			// It must run on that node, whatever its taints, and needs no scheduler for that.
			NodeName:                      node,
			Tolerations:                   []core.Toleration{{Operator: core.TolerationOpExists}},
			RestartPolicy:                 core.RestartPolicyNever,
			ActiveDeadlineSeconds:         ptr.To(int64(deadline / time.Second)),
			TerminationGracePeriodSeconds: ptr.To[int64](0),
			ServiceAccountName:            h.serviceAccount,
			AutomountServiceAccountToken:  ptr.To(false),
			EnableServiceLinks:            ptr.To(false),
			PriorityClassName:             "system-cluster-critical",
			Containers: []core.Container{{
				Name:                     "helper",
				Image:                    h.image,
				ImagePullPolicy:          core.PullNever,
				Args:                     []string{verb, path.Join(inside, path.Base(directory))},
				TerminationMessagePolicy: core.TerminationMessageFallbackToLogsOnError,
				VolumeMounts:             []core.VolumeMount{{Name: "volumes", MountPath: inside}},
				SecurityContext: &core.SecurityContext{
					RunAsUser:                ptr.To[int64](0),
					AllowPrivilegeEscalation: ptr.To(false),
					ReadOnlyRootFilesystem:   ptr.To(true),
					Capabilities:             capabilities,
				},
			}},
			Volumes: []core.Volume{{
				Name: "volumes",
				VolumeSource: core.VolumeSource{HostPath: &core.HostPathVolumeSource{
					Path: h.root,
					Type: ptr.To(core.HostPathDirectoryOrCreate),
				}},
			}},
		},
	}
}
