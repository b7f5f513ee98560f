package main

import (
	"context"
	"crypto/x509"
	"slices"

	certificates "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// most is how many certificates an instance without a Node is given within an hour.
const most = 5

// judgeClient decides the first client certificate of a minion. Whoever asks has only the token, which every minion can read; a stolen one
// must not make its bearer another node. So a name is given only to an instance that runs, that the cluster launched as a minion and that
// has no Node yet; and a few times at most (Kubernetes forgets approved requests after an hour), since a kubelet that ends before it has
// its certificate asks again with another key.
//
// What that leaves: who has the token and is faster than a new minion gets that minion's name. The minion then never joins, and an Event
// says why. The same goes for a minion whose Node somebody deleted while it runs.
func (a *approver) judgeClient(ctx context.Context, csr *certificates.CertificateSigningRequest, again bool) verdict {
	if !slices.Contains(csr.Spec.Groups, bootstrappers) {
		return wait("%s is not in the group %s", csr.Spec.Username, bootstrappers)
	}
	id, v := clientForm(csr)
	if id == "" {
		return v
	}
	// Two requests for one name must not both find that there is no other.
	lock := a.lockOf(id)
	lock.Lock()
	defer lock.Unlock()
	found, v := a.machine(ctx, id, again)
	if found == nil {
		return v
	}
	if role := found.tags["kup.dev/role"]; role != "minion" {
		return forged("the instance %s is no minion: its tag kup.dev/role is %q", id, role)
	}
	_, err := a.client.CoreV1().Nodes().Get(ctx, id, meta.GetOptions{})
	switch {
	case err == nil:
		return wait("the Node %s exists already: if its machine has lost its certificate, delete the Node; if it has not, somebody else asks in its name", id)
	case !apierrors.IsNotFound(err):
		return wait("the Node %s could not be looked for: %v", id, err)
	}
	// Not from the watch, which may be behind what was approved a moment ago.
	selector := fields.OneTermEqualSelector("spec.signerName", csr.Spec.SignerName).String()
	all, err := a.client.CertificatesV1().CertificateSigningRequests().List(ctx, meta.ListOptions{FieldSelector: selector})
	if err != nil {
		return wait("the other requests could not be listed: %v", err)
	}
	given := 0
	for i := range all.Items {
		other := &all.Items[i]
		if other.UID != csr.UID && other.Spec.SignerName == csr.Spec.SignerName && approved(other) && names(other, id) {
			given++
		}
	}
	if given >= most {
		return wait("%d certificates for %s were approved within the hour, and it has not joined by any of them: no more until they are forgotten", given, id)
	}
	return a.apply(ctx, csr, verdict{approve, "the instance " + id + " is a running minion of this cluster that has not joined yet"})
}

// clientForm checks what can be said of a request without asking anybody. Returns the instance that it names, or else a verdict.
func clientForm(csr *certificates.CertificateSigningRequest) (string, verdict) {
	request, err := parse(csr)
	if err != nil {
		return "", forged("the request can't be read: %v", err)
	}
	node, err := subject(request)
	switch {
	case err != nil:
		return "", forged("%v", err)
	case !instanceID.MatchString(node):
		return "", forged("%q is no id of an instance, as minions are called", node)
	case hasNames(request):
		return "", forged("it asks for alternative names, which a client certificate has not")
	case !usagesAre(csr.Spec.Usages, certificates.UsageClientAuth):
		return "", forged("it asks for the usages %q", csr.Spec.Usages)
	}
	return node, verdict{}
}

func hasNames(request *x509.CertificateRequest) bool {
	return len(request.DNSNames)+len(request.IPAddresses)+len(request.EmailAddresses)+len(request.URIs) > 0
}

func approved(csr *certificates.CertificateSigningRequest) bool {
	return slices.ContainsFunc(csr.Status.Conditions, func(c certificates.CertificateSigningRequestCondition) bool {
		return c.Type == certificates.CertificateApproved
	})
}

// names tells whether a request is for that node.
func names(csr *certificates.CertificateSigningRequest, node string) bool {
	request, err := parse(csr)
	return err == nil && request.Subject.CommonName == nodePrefix+node
}
