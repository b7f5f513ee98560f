package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	certificates "k8s.io/api/certificates/v1"
)

const (
	// nodes is the group of all kubelets that have a certificate.
	nodes = "system:nodes"
	// nodePrefix begins the user name of a kubelet; the name of its Node follows.
	nodePrefix = "system:node:"
	// bootstrappers is the group that the token of minions puts its bearer into.
	bootstrappers = "system:bootstrappers:kup"
)

// instanceID is the form of an EC2 instance's id, which is the name of its Node.
var instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)

// answer is what becomes of a request.
type answer int

const (
	// undecided: not now, or never; a person may decide otherwise.
	undecided answer = iota
	approve
	deny
)

// verdict is an answer with its reason, for people.
type verdict struct {
	answer answer
	why    string
}

func forged(format string, args ...any) verdict {
	return verdict{deny, fmt.Sprintf(format, args...)}
}

func wait(format string, args ...any) verdict {
	return verdict{undecided, fmt.Sprintf(format, args...)}
}

// decided tells whether there is nothing to do any more.
func decided(csr *certificates.CertificateSigningRequest) bool {
	return len(csr.Status.Certificate) > 0 || slices.ContainsFunc(csr.Status.Conditions, func(c certificates.CertificateSigningRequestCondition) bool {
		return c.Type == certificates.CertificateApproved || c.Type == certificates.CertificateDenied || c.Type == certificates.CertificateFailed
	})
}

// ours tells whether a request is this program's to decide. Renewals of client certificates are not: Kubernetes' own approver sees to those,
// since who asks has proven to be that node already.
func ours(csr *certificates.CertificateSigningRequest) bool {
	switch csr.Spec.SignerName {
	case certificates.KubeletServingSignerName:
		return true
	case certificates.KubeAPIServerClientKubeletSignerName:
		return !slices.Contains(csr.Spec.Groups, nodes)
	}
	return false
}

// parse reads a request's certificate request, whose signature must be of its own key.
func parse(csr *certificates.CertificateSigningRequest) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(csr.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("it holds something else than one CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return request, request.CheckSignature()
}

// subject returns the node that a request names; anything in the subject beside what a kubelet writes is an error.
func subject(request *x509.CertificateRequest) (string, error) {
	node, is := strings.CutPrefix(request.Subject.CommonName, nodePrefix)
	switch {
	case !is:
		return "", fmt.Errorf("its common name %q is not a node's", request.Subject.CommonName)
	case !slices.Equal(request.Subject.Organization, []string{nodes}):
		return "", fmt.Errorf("its organization is %q, not %s alone", request.Subject.Organization, nodes)
	case len(request.Subject.Names) != 2:
		return "", fmt.Errorf("its subject %q has more than a common name and an organization", request.Subject)
	}
	return node, nil
}

// usagesAre tells whether a certificate is asked for this purpose and nothing else. Only RSA keys encipher keys, so that is as the kubelet likes.
func usagesAre(usages []certificates.KeyUsage, purpose certificates.KeyUsage) bool {
	asked := slices.Clone(usages)
	slices.Sort(asked)
	plain := []certificates.KeyUsage{certificates.UsageDigitalSignature, purpose}
	rsa := append(slices.Clone(plain), certificates.UsageKeyEncipherment)
	slices.Sort(plain)
	slices.Sort(rsa)
	return slices.Equal(asked, plain) || slices.Equal(asked, rsa)
}

// machine finds the instance of a node, which must be one of the cluster's and running. Without one, the verdict says why.
func (a *approver) machine(ctx context.Context, id string, again bool) (*instance, verdict) {
	found, err := a.cloud.find(ctx, id, again)
	owner := a.cloud.ownerTag()
	switch {
	case err != nil:
		return nil, wait("%v", err)
	case found == nil:
		return nil, wait("EC2 lists no running instance %s with the tag %s=owned", id, owner)
	case found.tags[owner] != "owned" || found.tags["kup.dev/cluster"] != a.cloud.cluster:
		return nil, wait("the instance %s lacks the tags of this cluster, %s=owned and kup.dev/cluster=%s", id, owner, a.cloud.cluster)
	case found.state != "running":
		return nil, wait("the instance %s is %s, not running", id, found.state)
	}
	return found, verdict{}
}
