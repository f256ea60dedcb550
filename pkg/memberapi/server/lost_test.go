package server

import (
	"testing"

	toolscache "k8s.io/client-go/tools/cache"

	"crossway.dev/crossway/api/v1alpha1"
)

// What the hub's API server lacks since its etcd was restored was not deleted: watches
// end and their readers list again, who keep for a minute what a list lacks. What
// somebody deletes is told as deleted, also while other services are lost.
func TestLostObjectsAreNotDeleted(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop")
	f.member("b", "shop")
	f.export("shop", "web", "b")
	f.export("shop", "cart", "b")
	f.export("shop", "search", "b")
	f.push("b", "shop", "web", "10.98.0.1")
	f.push("b", "shop", "cart", "10.98.0.2")
	f.pass()
	imports, slices := f.openWatch(userOf("a"), importsPath), f.openWatch(userOf("a"), slicesPath)
	imports.expect("ADDED cart", "ADDED search", "ADDED web")
	slices.expect("ADDED cart", "ADDED web")

	f.withdraw("shop", "cart")
	f.sliceHandler().OnDelete(sliceOf("b", "shop", "cart"))
	f.pass()
	imports.expect("DELETED cart")
	slices.expect("DELETED cart")

	lost := sliceOf("b", "shop", "web")
	f.sliceHandler().OnDelete(toolscache.DeletedFinalStateUnknown{Key: lost.Namespace + "/" + lost.Name, Obj: lost})
	f.pass()
	slices.expect("ERROR 410")
	f.withdraw("shop", "search")
	f.pass()
	imports.expect("DELETED search")
	f.withdraw("shop", "web")
	f.pass()
	imports.expect("ERROR 410")

	f.export("shop", "web", "b")
	f.pass()
	imports = f.openWatch(userOf("a"), importsPath)
	imports.expect("ADDED web")
	export := &v1alpha1.MemberExport{Spec: v1alpha1.MemberExportSpec{Service: v1alpha1.ServiceReference{Namespace: "shop", Name: "web"}}}
	f.noteLost(toolscache.DeletedFinalStateUnknown{Key: "member-b/web.shop", Obj: export})
	f.withdraw("shop", "web")
	f.pass()
	imports.expect("ERROR 410")

	f.export("shop", "web", "b")
	f.pass()
	imports = f.openWatch(userOf("a"), importsPath)
	imports.expect("ADDED web")
	f.clusterHandler().OnDelete(toolscache.DeletedFinalStateUnknown{Key: "c", Obj: &v1alpha1.MemberCluster{}})
	f.withdraw("shop", "web")
	f.pass()
	imports.expect("ERROR 410")
}
