package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	certificates "k8s.io/api/certificates/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	uid "k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	reactions "k8s.io/client-go/testing"
)

const (
	one    = "i-0123456789abcdef0" // a minion that has joined
	fresh  = "i-0123456789abcdef1" // a minion that has not
	master = "i-0123456789abcdef2"
	alien  = "i-0123456789abcdef3" // of another cluster
	halted = "i-0123456789abcdef4" // still listed, but stopping
	absent = "i-0123456789abcdeff"
)

// fakeEC2 lists its instances, whatever the filters: the program has to look at tags and states itself too.
type fakeEC2 struct {
	instances []types.Instance
	err       error
	calls     int
}

func (f *fakeEC2) DescribeInstances(context.Context, *ec2.DescribeInstancesInput, ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error) {
	f.calls++
	return &ec2.DescribeInstancesOutput{Reservations: []types.Reservation{{Instances: f.instances}}}, f.err
}

func ec2Instance(id, cluster, role, address string, state types.InstanceStateName) types.Instance {
	tag := func(key, value string) types.Tag { return types.Tag{Key: &key, Value: &value} }
	return types.Instance{
		InstanceId:       &id,
		State:            &types.InstanceState{Name: state},
		Placement:        &types.Placement{AvailabilityZone: aws.String("us-west-2a")},
		PrivateIpAddress: &address,
		PrivateDnsName:   aws.String("ip-" + strings.ReplaceAll(address, ".", "-") + ".us-west-2.compute.internal"),
		PublicIpAddress:  aws.String("203.0.113.7"),
		NetworkInterfaces: []types.InstanceNetworkInterface{{PrivateIpAddresses: []types.InstancePrivateIpAddress{
			{PrivateIpAddress: &address}, {PrivateIpAddress: aws.String("172.20.0.200")},
		}}},
		Tags: []types.Tag{tag("kubernetes.io/cluster/"+cluster, "owned"), tag("kup.dev/cluster", cluster), tag("kup.dev/role", role)},
	}
}

// world is a cluster called test, as EC2 and the API tell of it.
type world struct {
	t        *testing.T
	ec2      *fakeEC2
	approver *approver
	start    time.Time
	now      time.Time
}

func newWorld(t *testing.T, objects ...runtime.Object) *world {
	start := time.Now()
	w := &world{t: t, start: start, now: start, ec2: &fakeEC2{instances: []types.Instance{
		ec2Instance(one, "test", "minion", "172.20.0.20", types.InstanceStateNameRunning),
		ec2Instance(fresh, "test", "minion", "172.20.0.21", types.InstanceStateNameRunning),
		ec2Instance(master, "test", "master", "172.20.0.10", types.InstanceStateNameRunning),
		ec2Instance(alien, "other", "minion", "172.20.0.22", types.InstanceStateNameRunning),
		ec2Instance(halted, "test", "minion", "172.20.0.23", types.InstanceStateNameShuttingDown),
	}}}
	for _, name := range []string{one, master, alien, halted} {
		objects = append(objects, &core.Node{ObjectMeta: meta.ObjectMeta{Name: name}, Spec: core.NodeSpec{ProviderID: "aws:///us-west-2a/" + name}})
	}
	c := newCloud(w.ec2, "test")
	c.now = func() time.Time { return w.now }
	w.approver = newApprover(fake.NewClientset(objects...), c)
	return w
}

// asked is what is asked for and by whom; tests change one thing of what is right.
type asked struct {
	name   string
	user   string
	groups []string
	signer string
	usages []certificates.KeyUsage
	cert   x509.CertificateRequest
	pem    func([]byte) []byte
}

func rightServing() *asked {
	return &asked{
		name: "serving", user: "system:node:" + one, groups: []string{"system:nodes", "system:authenticated"},
		signer: certificates.KubeletServingSignerName,
		usages: []certificates.KeyUsage{certificates.UsageDigitalSignature, certificates.UsageServerAuth},
		cert: x509.CertificateRequest{
			Subject:     pkix.Name{CommonName: "system:node:" + one, Organization: []string{"system:nodes"}},
			DNSNames:    []string{one, "ip-172-20-0-20.us-west-2.compute.internal"},
			IPAddresses: []net.IP{net.ParseIP("172.20.0.20"), net.ParseIP("172.20.0.200"), net.ParseIP("203.0.113.7")},
		},
	}
}

func rightClient() *asked {
	return &asked{
		name: "client", user: "system:bootstrap:abcdef", groups: []string{"system:bootstrappers", "system:bootstrappers:kup", "system:authenticated"},
		signer: certificates.KubeAPIServerClientKubeletSignerName,
		usages: []certificates.KeyUsage{certificates.UsageDigitalSignature, certificates.UsageClientAuth},
		cert:   x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:" + fresh, Organization: []string{"system:nodes"}}},
	}
}

func (a *asked) object(t *testing.T) *certificates.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &a.cert, key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	if a.pem != nil {
		text = a.pem(text)
	}
	return &certificates.CertificateSigningRequest{
		ObjectMeta: meta.ObjectMeta{Name: a.name, UID: uid.UID(a.name)},
		Spec:       certificates.CertificateSigningRequestSpec{Request: text, SignerName: a.signer, Usages: a.usages, Username: a.user, Groups: a.groups},
	}
}

// decide files a request, as if it were there from the start, lets it be decided, and compares with what the API then has.
func (w *world) decide(a *asked, want answer) verdict {
	w.t.Helper()
	csr := a.object(w.t)
	csr.CreationTimestamp = meta.NewTime(w.start)
	requests := w.approver.client.CertificatesV1().CertificateSigningRequests()
	if _, err := requests.Create(w.t.Context(), csr, meta.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	v := w.approver.decide(w.t.Context(), csr, false)
	after, err := requests.Get(w.t.Context(), csr.Name, meta.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	got := undecided
	for _, condition := range after.Status.Conditions {
		switch condition.Type {
		case certificates.CertificateApproved:
			got = approve
		case certificates.CertificateDenied:
			got = deny
		}
	}
	if got != want || v.answer != want {
		w.t.Errorf("%s: in the API %d, said %d, wanted %d: %s", a.name, got, v.answer, want, v.why)
	}
	return v
}

func TestWhatIsRightIsApproved(t *testing.T) {
	w := newWorld(t)
	w.decide(rightServing(), approve)
	w.decide(rightClient(), approve)
	rsa := rightServing()
	rsa.name = "rsa"
	rsa.usages = append(rsa.usages, certificates.UsageKeyEncipherment)
	w.decide(rsa, approve)
	ofMaster := rightServing()
	ofMaster.name, ofMaster.user, ofMaster.cert.Subject.CommonName = "of-master", "system:node:"+master, "system:node:"+master
	ofMaster.cert.DNSNames, ofMaster.cert.IPAddresses = nil, []net.IP{net.ParseIP("172.20.0.10")}
	w.decide(ofMaster, approve)
	if w.ec2.calls != 1 {
		t.Errorf("EC2 was asked %d times for what one listing told", w.ec2.calls)
	}
}

// The role is EC2's word, whatever a Node says of itself; a certificate is not refused for want of the label.
func TestMinionsAreLabelledWithTheirRole(t *testing.T) {
	w := newWorld(t)
	w.decide(rightServing(), approve)
	ofMaster := rightServing()
	ofMaster.name, ofMaster.user, ofMaster.cert.Subject.CommonName = "of-master", "system:node:"+master, "system:node:"+master
	ofMaster.cert.DNSNames, ofMaster.cert.IPAddresses = nil, []net.IP{net.ParseIP("172.20.0.10")}
	w.decide(ofMaster, approve)
	for id, want := range map[string]bool{one: true, master: false} {
		node, err := w.approver.client.CoreV1().Nodes().Get(t.Context(), id, meta.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, has := node.Labels["node-role.kubernetes.io/minion"]; has != want {
			t.Errorf("%s has the labels %v", id, node.Labels)
		}
	}
	client := w.approver.client.(*fake.Clientset)
	client.PrependReactor("patch", "nodes", func(reactions.Action) (bool, runtime.Object, error) { return true, nil, errors.New("no") })
	again := rightServing()
	again.name = "again"
	if err := client.CoreV1().Nodes().Delete(t.Context(), one, meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	node := &core.Node{ObjectMeta: meta.ObjectMeta{Name: one}, Spec: core.NodeSpec{ProviderID: "aws:///us-west-2a/" + one}}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), node, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.decide(again, approve)
}

func TestServingCertificatesOfOthers(t *testing.T) {
	for name, c := range map[string]struct {
		want   answer
		why    string
		change func(*asked)
	}{
		"another node":    {deny, "asks for a certificate of the node " + fresh, func(a *asked) { a.cert.Subject.CommonName = "system:node:" + fresh }},
		"no node":         {deny, "is not a node's", func(a *asked) { a.cert.Subject.CommonName = "kube-apiserver" }},
		"more groups":     {deny, "organization", func(a *asked) { a.cert.Subject.Organization = []string{"system:nodes", "system:masters"} }},
		"another group":   {deny, "organization", func(a *asked) { a.cert.Subject.Organization = []string{"system:masters"} }},
		"more subject":    {deny, "more than", func(a *asked) { a.cert.Subject.OrganizationalUnit = []string{"x"} }},
		"client too":      {deny, "usages", func(a *asked) { a.usages = append(a.usages, certificates.UsageClientAuth) }},
		"an authority":    {deny, "usages", func(a *asked) { a.usages = append(a.usages, certificates.UsageCertSign) }},
		"no server":       {deny, "usages", func(a *asked) { a.usages = a.usages[:1] }},
		"an email":        {deny, "email", func(a *asked) { a.cert.EmailAddresses = []string{"a@b.example"} }},
		"a URI":           {deny, "URI", func(a *asked) { a.cert.URIs = []*url.URL{{Scheme: "https", Host: "x.example"}} }},
		"no names at all": {deny, "no name", func(a *asked) { a.cert.DNSNames, a.cert.IPAddresses = nil, nil }},
		"no request":      {deny, "can't be read", func(a *asked) { a.pem = func([]byte) []byte { return []byte("-----BEGIN NOTHING-----") } }},
		"two requests":    {deny, "something else", func(a *asked) { a.pem = func(p []byte) []byte { return append(p, p...) } }},
		"by no node":      {undecided, "is not a node", func(a *asked) { a.user = "somebody" }},
		"not in a group":  {undecided, "is not a node", func(a *asked) { a.groups = []string{"system:authenticated"} }},
		"not an instance": {undecided, "not called by", func(a *asked) { a.user, a.cert.Subject.CommonName = "system:node:minion-1", "system:node:minion-1" }},
		"unknown":         {undecided, "lists no", func(a *asked) { a.user, a.cert.Subject.CommonName = "system:node:"+absent, "system:node:"+absent }},
		"not ours":        {undecided, "lacks the tags", func(a *asked) { a.user, a.cert.Subject.CommonName = "system:node:"+alien, "system:node:"+alien }},
		"not running":     {undecided, "shutting-down", func(a *asked) { a.user, a.cert.Subject.CommonName = "system:node:"+halted, "system:node:"+halted }},
		"without a Node":  {undecided, "does not exist", func(a *asked) { a.user, a.cert.Subject.CommonName = "system:node:"+fresh, "system:node:"+fresh }},
	} {
		t.Run(name, func(t *testing.T) {
			a := rightServing()
			c.change(a)
			if v := newWorld(t).decide(a, c.want); !strings.Contains(v.why, c.why) {
				t.Errorf("the reason is %q, not %q", v.why, c.why)
			}
		})
	}
}

func TestAddressesOfOthersAreDeniedOnceEC2HasHadTime(t *testing.T) {
	for _, change := range []func(*asked){
		func(a *asked) { a.cert.IPAddresses = append(a.cert.IPAddresses, net.ParseIP("172.20.0.10")) },
		func(a *asked) { a.cert.IPAddresses = append(a.cert.IPAddresses, net.ParseIP("10.0.0.1")) },
		func(a *asked) { a.cert.IPAddresses = append(a.cert.IPAddresses, net.ParseIP("fd00::1")) },
		func(a *asked) { a.cert.DNSNames = append(a.cert.DNSNames, "api.kup.internal") },
		func(a *asked) { a.cert.DNSNames = append(a.cert.DNSNames, fresh) },
		func(a *asked) { a.cert.DNSNames = append(a.cert.DNSNames, "*") },
	} {
		w := newWorld(t)
		early := rightServing()
		change(early)
		w.decide(early, undecided)
		w.now = w.now.Add(lag + time.Second)
		late := rightServing()
		change(late)
		late.name = "late"
		w.decide(late, deny)
	}
}

func TestWhatTheKubeletSaysOfItselfIsNoProof(t *testing.T) {
	w := newWorld(t)
	nodes := w.approver.client.CoreV1().Nodes()
	node, err := nodes.Get(t.Context(), one, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Status.Addresses = []core.NodeAddress{{Type: core.NodeInternalIP, Address: "172.20.0.10"}}
	if _, err := nodes.Update(t.Context(), node, meta.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	a := rightServing()
	a.cert.IPAddresses = []net.IP{net.ParseIP("172.20.0.10")}
	w.decide(a, undecided)

	node.Spec.ProviderID = "aws:///us-west-2a/" + fresh
	if _, err := nodes.Update(t.Context(), node, meta.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	b := rightServing()
	b.name = "provider-id"
	w.decide(b, undecided)
}

func TestClientCertificatesOfOthers(t *testing.T) {
	for name, c := range map[string]struct {
		want   answer
		why    string
		change func(*asked)
	}{
		"an administrator": {deny, "not a node's", func(a *asked) {
			a.cert.Subject = pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}
		}},
		"more groups":     {deny, "organization", func(a *asked) { a.cert.Subject.Organization = []string{"system:nodes", "system:masters"} }},
		"no group":        {deny, "organization", func(a *asked) { a.cert.Subject.Organization = nil }},
		"any name":        {deny, "no id of an instance", func(a *asked) { a.cert.Subject.CommonName = "system:node:minion-1" }},
		"longer name":     {deny, "no id of an instance", func(a *asked) { a.cert.Subject.CommonName += "\nx" }},
		"server too":      {deny, "usages", func(a *asked) { a.usages = append(a.usages, certificates.UsageServerAuth) }},
		"with addresses":  {deny, "alternative names", func(a *asked) { a.cert.IPAddresses = []net.IP{net.ParseIP("172.20.0.21")} }},
		"with a name":     {deny, "alternative names", func(a *asked) { a.cert.DNSNames = []string{fresh} }},
		"a master":        {deny, "no minion", func(a *asked) { a.cert.Subject.CommonName = "system:node:" + master }},
		"a running node":  {undecided, "exists already", func(a *asked) { a.cert.Subject.CommonName = "system:node:" + one }},
		"unknown":         {undecided, "lists no", func(a *asked) { a.cert.Subject.CommonName = "system:node:" + absent }},
		"not ours":        {undecided, "lacks the tags", func(a *asked) { a.cert.Subject.CommonName = "system:node:" + alien }},
		"not running":     {undecided, "shutting-down", func(a *asked) { a.cert.Subject.CommonName = "system:node:" + halted }},
		"without a token": {undecided, "not in the group", func(a *asked) { a.groups = []string{"system:authenticated"} }},
		"another token":   {undecided, "not in the group", func(a *asked) { a.groups = []string{"system:bootstrappers"} }},
	} {
		t.Run(name, func(t *testing.T) {
			a := rightClient()
			c.change(a)
			if v := newWorld(t).decide(a, c.want); !strings.Contains(v.why, c.why) {
				t.Errorf("the reason is %q, not %q", v.why, c.why)
			}
		})
	}
}

// A kubelet that ended before it had its certificate asks with another key; but not without end.
func TestANameIsGivenAFewTimes(t *testing.T) {
	w := newWorld(t)
	w.decide(rightClient(), approve)
	for n := 2; n <= most; n++ {
		again := rightClient()
		again.name = fmt.Sprintf("again-%d", n)
		w.decide(again, approve)
	}
	tooMany := rightClient()
	tooMany.name = "too-many"
	if v := w.decide(tooMany, undecided); !strings.Contains(v.why, "no more until they are forgotten") {
		t.Error(v.why)
	}
	// Kubernetes forgets the first in the end; without a Node, nobody has that name then.
	requests := w.approver.client.CertificatesV1().CertificateSigningRequests()
	if err := requests.Delete(t.Context(), "client", meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	third := rightClient()
	third.name = "third"
	w.decide(third, approve)
}

func TestWhatOthersDecideIsLeftToThem(t *testing.T) {
	w := newWorld(t)
	renewal := rightClient()
	renewal.user, renewal.groups = "system:node:"+fresh, []string{"system:nodes", "system:authenticated"}
	w.decide(renewal, undecided)
	foreign := rightServing()
	foreign.name, foreign.signer = "foreign", "example.com/serving"
	w.decide(foreign, undecided)
	settled := rightServing()
	settled.name = "settled"
	csr := settled.object(t)
	csr.Status.Conditions = []certificates.CertificateSigningRequestCondition{{Type: certificates.CertificateDenied, Status: core.ConditionTrue}}
	if v := w.approver.decide(t.Context(), csr, false); v.answer != undecided {
		t.Error("what a person has denied was decided again")
	}
	if w.ec2.calls != 0 {
		t.Error("EC2 was asked about what others decide")
	}
}

func TestEC2IsAskedAtMostOnceASecond(t *testing.T) {
	w := newWorld(t)
	find := func(id string, again bool) *instance {
		found, err := w.approver.cloud.find(t.Context(), id, again)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for range 50 {
		if find(absent, true) != nil || find(one, true) == nil {
			t.Fatal("the listing is wrong")
		}
	}
	if w.ec2.calls != 1 {
		t.Errorf("%d calls within a second", w.ec2.calls)
	}
	// An instance that was not there yet is seen at the next look.
	w.ec2.instances = append(w.ec2.instances, ec2Instance(absent, "test", "minion", "172.20.0.30", types.InstanceStateNameRunning))
	w.now = w.now.Add(gap)
	if find(one, false) == nil || w.ec2.calls != 1 {
		t.Error("a listing of a second ago is good for what it has")
	}
	if find(absent, false) == nil || w.ec2.calls != 2 {
		t.Error("the new instance was not seen")
	}
}

func TestAnEC2ThatFailsDecidesNothingAndIsSeen(t *testing.T) {
	w := newWorld(t)
	w.ec2.err = errors.New("UnauthorizedOperation")
	if v := w.decide(rightServing(), undecided); !strings.Contains(v.why, "UnauthorizedOperation") {
		t.Error(v.why)
	}
	answer := func() int {
		recorder := httptest.NewRecorder()
		health(w.approver.cloud.health).ServeHTTP(recorder, httptest.NewRequest("GET", "/healthz", nil))
		return recorder.Code
	}
	if answer() != 503 {
		t.Error("/healthz does not show it")
	}
	w.ec2.err = nil
	w.now = w.now.Add(gap)
	again := rightServing()
	again.name = "again"
	w.decide(again, approve)
	if answer() != 200 {
		t.Error("/healthz stays bad")
	}
}

// The whole of it: a request that comes before its instance is listed is approved by the watch and the queue once it is, with Events of both.
func TestItWatchesAndLooksAgain(t *testing.T) {
	w := newWorld(t)
	w.approver.cloud.now = time.Now
	late := ec2Instance(fresh, "test", "minion", "172.20.0.21", types.InstanceStateNamePending)
	w.ec2.instances = []types.Instance{late}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.approver.run(ctx) }()
	requests := w.approver.client.CertificatesV1().CertificateSigningRequests()
	if _, err := requests.Create(ctx, rightClient().object(t), meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	reasons := func() []string {
		events, err := w.approver.client.CoreV1().Events("").List(ctx, meta.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, event := range events.Items {
			all = append(all, event.Reason)
		}
		return all
	}
	until := func(what string, done func() bool) {
		for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s did not come", what)
			}
		}
	}
	until("the Event that says why not", func() bool { return slices.Contains(reasons(), "NotApproved") })
	// Not while it is read.
	w.approver.cloud.mutex.Lock()
	w.ec2.instances = []types.Instance{ec2Instance(fresh, "test", "minion", "172.20.0.21", types.InstanceStateNameRunning)}
	w.approver.cloud.mutex.Unlock()
	until("the approval", func() bool {
		csr, err := requests.Get(ctx, "client", meta.GetOptions{})
		return err == nil && approved(csr)
	})
	until("the Event of the approval", func() bool { return slices.Contains(reasons(), "Approved") })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
