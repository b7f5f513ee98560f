package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	certificates "k8s.io/api/certificates/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

const (
	// workers decide at the same time.
	workers = 4
	// What is undecided is looked at again, first soon, then rarely: EC2 may not list an instance for some seconds after it has started.
	soonest = 500 * time.Millisecond
	latest  = time.Minute
	// unheard is how long one look may take.
	unheard = time.Minute
)

// approver watches requests and decides those that are its own.
type approver struct {
	client   kubernetes.Interface
	cloud    *cloud
	recorder record.EventRecorder
	queue    workqueue.TypedRateLimitingInterface[string]
	// locks are for the names of nodes, shared by few.
	locks [64]sync.Mutex

	mutex sync.Mutex
	// said is the last reason given for each request that is undecided, so that none is given twice in a row.
	said map[types.UID]string
}

func newApprover(client kubernetes.Interface, cloud *cloud) *approver {
	return &approver{
		client: client,
		cloud:  cloud,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](soonest, latest)),
		said: map[types.UID]string{},
	}
}

// run decides until the context ends.
func (a *approver) run(ctx context.Context) error {
	events := record.NewBroadcaster(record.WithContext(ctx))
	defer events.Shutdown()
	events.StartRecordingToSink(&typed.EventSinkImpl{Interface: a.client.CoreV1().Events("")})
	a.recorder = events.NewRecorder(scheme.Scheme, core.EventSource{Component: "node-approver"})

	// Whatever is wrong with credentials or the network is said, and seen in /healthz, before the first machine suffers from it.
	if _, err := a.cloud.find(ctx, "", false); err != nil {
		klog.ErrorS(err, "No request can be approved for now")
	}
	factory := informers.NewSharedInformerFactory(a.client, 0)
	informer := factory.Certificates().V1().CertificateSigningRequests().Informer()
	enqueue := func(object any) {
		if csr, ok := object.(*certificates.CertificateSigningRequest); ok && ours(csr) && !decided(csr) {
			a.queue.Add(csr.Name)
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, object any) { enqueue(object) },
		DeleteFunc: a.forget,
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil
	}
	klog.InfoS("Decides")
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for a.next(ctx, informer.GetStore()) {
			}
		})
	}
	<-ctx.Done()
	a.queue.ShutDown()
	all.Wait()
	factory.Shutdown()
	return nil
}

// next takes one request from the queue; false if there will be none any more.
func (a *approver) next(ctx context.Context, store cache.Store) bool {
	name, ended := a.queue.Get()
	if ended {
		return false
	}
	defer a.queue.Done(name)
	object, there, err := store.GetByKey(name)
	csr, _ := object.(*certificates.CertificateSigningRequest)
	if err != nil || !there || csr == nil || decided(csr) {
		a.queue.Forget(name)
		return true
	}
	look, cancel := context.WithTimeout(ctx, unheard)
	defer cancel()
	if a.decide(look, csr, a.queue.NumRequeues(name) > 0).answer == undecided {
		a.queue.AddRateLimited(name)
	} else {
		a.queue.Forget(name)
	}
	return true
}

// decide looks at one request and does what follows from it. With again set, an earlier look did not come to a decision.
func (a *approver) decide(ctx context.Context, csr *certificates.CertificateSigningRequest, again bool) verdict {
	var v verdict
	switch {
	case !ours(csr) || decided(csr):
		return verdict{undecided, "it is not ours to decide"}
	case csr.Spec.SignerName == certificates.KubeletServingSignerName:
		v = a.judgeServing(ctx, csr, again)
	default:
		v = a.judgeClient(ctx, csr, again)
	}
	// What is approved is so already: that has to happen while the name is locked.
	if v.answer == deny {
		v = a.apply(ctx, csr, v)
	}
	a.tell(csr, v)
	return v
}

// apply writes an answer into the request. What can't be written is undecided.
func (a *approver) apply(ctx context.Context, csr *certificates.CertificateSigningRequest, v verdict) verdict {
	condition := certificates.CertificateSigningRequestCondition{
		Type: certificates.CertificateApproved, Status: core.ConditionTrue, Reason: "NodeVerified", Message: v.why,
	}
	if v.answer == deny {
		condition.Type, condition.Reason = certificates.CertificateDenied, "NodeForged"
	}
	changed := csr.DeepCopy()
	changed.Status.Conditions = append(changed.Status.Conditions, condition)
	_, err := a.client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, changed, meta.UpdateOptions{})
	// Mostly somebody else has decided meanwhile, or it is gone: the watch brings what it has become.
	if err != nil {
		return wait("the answer could not be written: %v", err)
	}
	return v
}

// tell says what became of a request, to the log and as an Event; of those that stay undecided only when the reason changes.
func (a *approver) tell(csr *certificates.CertificateSigningRequest, v verdict) {
	a.mutex.Lock()
	old, known := a.said[csr.UID]
	if v.answer == undecided {
		a.said[csr.UID] = v.why
	} else {
		delete(a.said, csr.UID)
	}
	a.mutex.Unlock()
	if v.answer == undecided && known && old == v.why {
		return
	}
	kind, reason := core.EventTypeNormal, "Approved"
	switch v.answer {
	case undecided:
		kind, reason = core.EventTypeWarning, "NotApproved"
	case deny:
		kind, reason = core.EventTypeWarning, "Denied"
	}
	klog.InfoS(reason, "request", csr.Name, "signer", csr.Spec.SignerName, "by", csr.Spec.Username, "why", v.why)
	if a.recorder != nil {
		a.recorder.Event(csr, kind, reason, v.why)
	}
}

// forget drops what is remembered of a request that is gone.
func (a *approver) forget(object any) {
	if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	if csr, ok := object.(*certificates.CertificateSigningRequest); ok {
		a.mutex.Lock()
		delete(a.said, csr.UID)
		a.mutex.Unlock()
	}
}

// lockOf returns the lock of a node's name.
func (a *approver) lockOf(node string) *sync.Mutex {
	hash := fnv.New32a()
	fmt.Fprint(hash, node)
	return &a.locks[hash.Sum32()%uint32(len(a.locks))]
}
