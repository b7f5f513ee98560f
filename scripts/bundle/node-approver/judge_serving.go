package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	certificates "k8s.io/api/certificates/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// minionLabel is what `kubectl get nodes` shows under ROLES.
const minionLabel = "node-role.kubernetes.io/minion"

// lag is how long EC2's answers may be behind what a machine knows of itself, and more.
const lag = 2 * time.Minute

// judgeServing decides the serving certificate of a kubelet. Who asks has proven to be a node; what is asked for must be its own.
func (a *approver) judgeServing(ctx context.Context, csr *certificates.CertificateSigningRequest, again bool) verdict {
	id, is := strings.CutPrefix(csr.Spec.Username, nodePrefix)
	if !is || !slices.Contains(csr.Spec.Groups, nodes) {
		return wait("%s is not a node", csr.Spec.Username)
	}
	request, v := servingForm(csr, id)
	if request == nil {
		return v
	}
	if !instanceID.MatchString(id) {
		return wait("the node %s is not called by the id of an instance", id)
	}
	found, v := a.machine(ctx, id, again)
	if found == nil {
		return v
	}
	node, err := a.client.CoreV1().Nodes().Get(ctx, id, meta.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return wait("the Node %s does not exist", id)
	case err != nil:
		return wait("the Node %s could not be looked at: %v", id, err)
	case node.Spec.ProviderID != "aws:///"+found.zone+"/"+id:
		return wait("the Node %s has the provider ID %q, but the instance is in %s", id, node.Spec.ProviderID, found.zone)
	}
	if stranger := foreign(request, found); stranger != "" {
		if a.cloud.now().Sub(csr.CreationTimestamp.Time) < lag {
			return wait("EC2 does not say yet that %s belongs to the instance %s", stranger, id)
		}
		return forged("%s does not belong to the instance %s", stranger, id)
	}
	v = a.apply(ctx, csr, verdict{approve, "all names and addresses belong to the running instance " + id})
	if v.answer == approve && found.tags["kup.dev/role"] == "minion" {
		a.label(ctx, node)
	}
	return v
}

// label gives the Node of a minion the label of its role, which kubelets may not set themselves. It is for people to read: what fails is
// said, and tried again with the next certificate.
func (a *approver) label(ctx context.Context, node *core.Node) {
	if _, there := node.Labels[minionLabel]; there {
		return
	}
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:""}}}`, minionLabel)
	if _, err := a.client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, meta.PatchOptions{}); err != nil {
		klog.ErrorS(err, "A minion has not got the label of its role", "node", node.Name)
	}
}

// servingForm checks what can be said of a request without asking anybody. Returns what is asked for, or else a verdict.
func servingForm(csr *certificates.CertificateSigningRequest, id string) (*x509.CertificateRequest, verdict) {
	request, err := parse(csr)
	if err != nil {
		return nil, forged("the request can't be read: %v", err)
	}
	node, err := subject(request)
	switch {
	case err != nil:
		return nil, forged("%v", err)
	case node != id:
		return nil, forged("%s asks for a certificate of the node %s", csr.Spec.Username, node)
	case len(request.EmailAddresses) > 0 || len(request.URIs) > 0:
		return nil, forged("it asks for an email address or a URI, which a kubelet does not have")
	case len(request.DNSNames) == 0 && len(request.IPAddresses) == 0:
		return nil, forged("it asks for no name and no address")
	case !usagesAre(csr.Spec.Usages, certificates.UsageServerAuth):
		return nil, forged("it asks for the usages %q", csr.Spec.Usages)
	}
	return request, verdict{}
}

// foreign returns a name or address of a request that is not the instance's, empty if all are.
func foreign(request *x509.CertificateRequest, found *instance) string {
	for _, name := range request.DNSNames {
		if !found.names[strings.ToLower(name)] {
			return name
		}
	}
	for _, ip := range request.IPAddresses {
		address, ok := netip.AddrFromSlice(ip)
		if !ok || !found.addresses[address.Unmap()] {
			return ip.String()
		}
	}
	return ""
}
