package clients

import (
	"context"
	"os"
	"testing"

	vault "github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"
	"github.com/hashicorp/vault/api/auth/kubernetes"
)

// loggedIn logs in by one of Vault's own helpers, uses a key, makes a child as Terraform's provider does, and watches
// the token's life as agents do.
func loggedIn(t *testing.T, method vault.AuthMethod) {
	t.Helper()
	client := vaultClient(t)
	client.ClearToken()
	secret, err := client.Auth().Login(context.Background(), method)
	ok(t, err)
	renewable, err := secret.TokenIsRenewable()
	ok(t, err)
	if renewable || secret.Auth.Accessor == "" || secret.Auth.LeaseDuration <= 0 {
		t.Fatalf("an odd token: %+v", secret.Auth)
	}
	self, err := client.Auth().Token().LookupSelf()
	ok(t, err)
	if self.Data["id"] != client.Token() {
		t.Fatal("another token was looked up")
	}
	_, err = client.Logical().Write("transit/keys/"+t.Name(), nil)
	ok(t, err)
	child, err := client.Auth().Token().Create(&vault.TokenCreateRequest{
		DisplayName: "terraform", TTL: "20m", ExplicitMaxTTL: "20m", Renewable: new(bool),
	})
	ok(t, err)
	watcher, err := client.NewLifetimeWatcher(&vault.LifetimeWatcherInput{Secret: secret})
	ok(t, err)
	go watcher.Start()
	watcher.Stop()
	other := vaultClient(t)
	other.SetToken(child.Auth.ClientToken)
	_, err = other.Auth().Token().LookupSelf()
	ok(t, err)
	ok(t, client.Auth().Token().RevokeAccessor(child.Auth.Accessor))
	if _, err = other.Auth().Token().LookupSelf(); err == nil {
		t.Fatal("a child that was ended lives")
	}
	ok(t, client.Auth().Token().RevokeSelf(""))
	if _, err = client.Auth().Token().LookupSelf(); err == nil {
		t.Fatal("a token that was ended lives")
	}
}

func TestAppRole(t *testing.T) {
	method, err := approle.NewAppRoleAuth(
		os.Getenv("AWS_ACCESS_KEY_ID"), &approle.SecretID{FromEnv: "AWS_SECRET_ACCESS_KEY"})
	ok(t, err)
	loggedIn(t, method)
}

func TestKubernetes(t *testing.T) {
	method, err := kubernetes.NewKubernetesAuth("pods", kubernetes.WithServiceAccountTokenPath(os.Getenv("POD_TOKEN")))
	ok(t, err)
	loggedIn(t, method)
}
