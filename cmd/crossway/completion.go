package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
)

// completionTimeout is how long the shell waits for names from a hub.
const completionTimeout = 3 * time.Second

// completeContexts completes the contexts of the kubeconfig.
func completeContexts(a *app) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		config, err := a.kubeconfig.ToRawKubeConfigLoader().RawConfig()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for name := range config.Contexts {
			names = append(names, name)
		}
		slices.Sort(names)
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeMembers completes the MemberClusters of the hub, as the first argument.
func completeMembers(a *app) cobra.CompletionFunc {
	return completeNames(a, func(ctx context.Context, hub client.Client) (names []string, err error) {
		var members v1alpha1.MemberClusterList
		err = hub.List(ctx, &members)
		for _, m := range members.Items {
			names = append(names, m.Name+"\t"+m.Spec.Region)
		}
		return names, err
	})
}

// completePools completes the EdgePools of the hub.
func completePools(a *app) cobra.CompletionFunc {
	return completeNames(a, func(ctx context.Context, hub client.Client) (names []string, err error) {
		var pools v1alpha1.EdgePoolList
		err = hub.List(ctx, &pools)
		for _, p := range pools.Items {
			names = append(names, p.Name+"\t"+p.Spec.Region)
		}
		return names, err
	})
}

func completeNames(a *app, list func(context.Context, client.Client) ([]string, error)) cobra.CompletionFunc {
	return func(c *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), completionTimeout)
		defer cancel()
		hub, err := a.hub()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names, err := list(ctx, hub)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
