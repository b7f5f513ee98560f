// Approves the certificates of minions on AWS, after EC2 has said who they are.
//
//	node-approver --kubeconfig FILE --cluster NAME [--leader-elect=BOOL] [--health-address ADDRESS:PORT]
//	node-approver version
//
// A minion comes by itself, with a token that every minion of the cluster has. So Kubernetes alone can't tell whether a request for a
// certificate comes from the machine that it names, nor whether the addresses in it are that machine's: the status of a Node, which
// says so too, is written by the kubelet that asks. EC2 knows. This program runs on masters, one at a time by a Lease, and decides
//
//   - the first client certificate of a minion (judge_client.go), in place of Kubernetes' own approver, which would take any name;
//   - the serving certificates of kubelets (judge_serving.go), which Kubernetes' own approver leaves alone. With it a minion's Node gets
//     the label of its role.
//
// What is right is approved. What no honest machine would ask for is denied. All else is left for a person to decide, with an Event that
// says why, and looked at again from time to time.
//
// Region, credentials and endpoint come as AWS's SDK finds them: AWS_REGION, the machine's role by IMDSv2, AWS_ENDPOINT_URL.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

var version = "unknown"

const (
	// leaseName is the Lease, in kube-system, of the one that decides.
	leaseName = "kup-node-approver"
	// The times of Kubernetes' own controllers: another takes over within leaseDuration of one that fell silent.
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

type settings struct {
	kubeconfig string
	cluster    string
	elect      bool
	health     string
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "version" {
		fmt.Println(version)
		return nil
	}
	var s settings
	flags := flag.NewFlagSet("node-approver", flag.ContinueOnError)
	flags.StringVar(&s.kubeconfig, "kubeconfig", "", "how to log in to the API")
	flags.StringVar(&s.cluster, "cluster", "", "the cluster's name, as in the tags of its instances")
	flags.BoolVar(&s.elect, "leader-elect", true, "agree with the other masters on who decides")
	flags.StringVar(&s.health, "health-address", "127.0.0.1:10271", "where /healthz answers")
	klog.InitFlags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.kubeconfig == "" || s.cluster == "" || flags.NArg() > 0 {
		return errors.New("usage: node-approver --kubeconfig FILE --cluster NAME [--leader-elect=BOOL] [--health-address ADDRESS:PORT] | version")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	return serve(ctx, s)
}

// serve decides requests until it is told to stop; it fails if another has taken over.
func serve(ctx context.Context, s settings) error {
	login, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", s.kubeconfig, err)
	}
	login.UserAgent = "node-approver/" + version
	client, err := kubernetes.NewForConfig(login)
	if err != nil {
		return err
	}
	aws, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("cannot read AWS's settings: %w", err)
	}
	if aws.Region == "" {
		return errors.New("no region is known: AWS_REGION is not set")
	}
	cloud := newCloud(ec2.NewFromConfig(aws), s.cluster)
	klog.InfoS("node-approver", "version", version, "cluster", s.cluster, "region", aws.Region)

	// More than a renewal late means that the renewing itself hangs.
	watchdog := leaderelection.NewLeaderHealthzAdaptor(leaseDuration)
	listener, err := net.Listen("tcp", s.health)
	if err != nil {
		return fmt.Errorf("cannot answer at %s: %w", s.health, err)
	}
	server := &http.Server{Handler: health(watchdog.Check, cloud.health), ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(listener)
	defer server.Close()

	approver := newApprover(client, cloud)
	if !s.elect {
		return approver.run(ctx)
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	leading, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	leaderelection.RunOrDie(leading, leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  meta.ObjectMeta{Namespace: meta.NamespaceSystem, Name: leaseName},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: host + "_" + string(uuid.NewUUID())},
		},
		LeaseDuration:   leaseDuration,
		RenewDeadline:   renewDeadline,
		RetryPeriod:     retryPeriod,
		ReleaseOnCancel: true,
		WatchDog:        watchdog,
		Name:            leaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				ended <- approver.run(ctx)
				cancel()
			},
			OnStoppedLeading: func() { klog.InfoS("Decides no longer") },
		},
	})
	if ctx.Err() != nil {
		return nil
	}
	select {
	case err := <-ended:
		if err != nil {
			return err
		}
	default:
	}
	// Whoever has it now decides; the service manager starts this one again, to stand by.
	return fmt.Errorf("the Lease %s is no longer this one's", leaseName)
}

// health answers /healthz: whether this one keeps its place among the masters, and whether EC2 answers it.
func health(checks ...func(*http.Request) error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		for _, check := range checks {
			if err := check(r); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}
