using Drover.Orchestrator.Git;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.Git;

public sealed class RepositoryTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Opens_from_a_subfolder_and_knows_branch_and_root()
    {
        using var repo = new GitTestRepo(folder: "with space – ünïcode");
        var found = await Repository.OpenAsync(repo.Client(), Path.Combine(repo.Root, "src"), Ct);
        Assert.Equal(repo.Root, found.Root);
        Assert.Equal("refs/heads/trunk", found.HeadBranch);
        Assert.Equal("sha1", found.ObjectFormat);
        Assert.Equal("refs/heads/trunk", await found.DetectTargetAsync(null, Ct));
        Assert.Equal(GitTestRepo.Ada, found.Identity());
        await Preflight.CheckAsync(found, "refs/heads/trunk", Ct);
    }

    [Fact]
    public async Task Opens_from_a_linked_worktree_and_finds_the_main_one()
    {
        using var repo = new GitTestRepo();
        repo.Run("worktree", "add", "-q", "-b", "side", "../side");
        var found = await Repository.OpenAsync(repo.Client(), Path.Combine(repo.Top, "side"), Ct);
        Assert.Equal(repo.Root, found.Root);
    }

    [Fact]
    public async Task G07_refuses_what_is_no_usable_repository_by_name()
    {
        using var repo = new GitTestRepo(initialise: false);
        await RefusesOpenAsync(repo, repo.Root, "is not a git repository");
        repo.Run("init", "-q");
        await RefusesOpenAsync(repo, repo.Root, "has no commits");
        repo.RunIn(repo.Top, "init", "-q", "--bare", "bare.git");
        await RefusesOpenAsync(repo, Path.Combine(repo.Top, "bare.git"), "is a bare repository");
    }

    [Fact]
    public async Task Identity_missing_names_both_commands()
    {
        using var repo = new GitTestRepo();
        File.WriteAllText(Path.Combine(repo.Home, ".gitconfig"), "");
        var found = await Repository.OpenAsync(repo.Client(), repo.Root, Ct);
        var error = Assert.Throws<DroverException>(() => found.Identity());
        Assert.Equal(ErrorCode.InvalidInput, error.Code);
        Assert.Contains("git config --global user.name", error.Message, StringComparison.Ordinal);
        Assert.Contains("git config --global user.email", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Target_detached_head_needs_a_name_and_unknown_names_are_refused()
    {
        using var repo = new GitTestRepo();
        repo.Run("checkout", "-q", "--detach");
        var found = await Repository.OpenAsync(repo.Client(), repo.Root, Ct);
        var error = await Assert.ThrowsAsync<DroverException>(() => found.DetectTargetAsync(null, Ct));
        Assert.Contains("--target", error.Message, StringComparison.Ordinal);
        Assert.Equal("refs/heads/trunk", await found.DetectTargetAsync("trunk", Ct));
        Assert.Equal(ErrorCode.NotFound, (await Assert.ThrowsAsync<DroverException>(() => found.DetectTargetAsync("nope", Ct))).Code);
        Assert.Equal(ErrorCode.InvalidInput, (await Assert.ThrowsAsync<DroverException>(() => found.DetectTargetAsync("a..b", Ct))).Code);
        Assert.Equal(ErrorCode.InvalidInput, (await Assert.ThrowsAsync<DroverException>(() => found.DetectTargetAsync("x\ny", Ct))).Code);
    }

    [Fact]
    public async Task Exclude_is_added_once_and_keeps_the_users_bytes()
    {
        using var repo = new GitTestRepo();
        var file = Path.Combine(repo.Root, ".git/info/exclude");
        File.WriteAllText(file, "mine\r\n# no end");
        await repo.OpenAsync();
        repo.Repository.EnsureExcluded();
        Assert.Equal("mine\r\n# no end\n.drover/\n", File.ReadAllText(file));
    }

    [Fact]
    public async Task Hooks_are_named()
    {
        using var repo = new GitTestRepo();
        await repo.OpenAsync();
        Assert.Empty(repo.Repository.Hooks());
        var hook = Path.Combine(repo.Root, ".git/hooks/pre-commit");
        GitTestRepo.Write(repo.Root, ".git/hooks/pre-commit", "#!/bin/sh\n");
        File.SetUnixFileMode(hook, (UnixFileMode)0b111_101_101);
        Assert.Equal(["pre-commit"], repo.Repository.Hooks());
    }

    [Fact]
    public async Task Preflight_refuses_sparse() => await RefusesAsync(r => r.Run("sparse-checkout", "set", "src"), "sparse checkout");

    [Fact]
    public async Task Preflight_refuses_a_filter() => await RefusesAsync(r =>
    {
        r.Write("sub/.gitattributes", "*.bin filter=scramble\n");
        r.CommitAll("filter");
    }, "content filter 'scramble' (sub/.gitattributes)");

    [Fact]
    public async Task Preflight_refuses_lfs() => await RefusesAsync(r =>
    {
        r.Write(".gitattributes", "# big\n*.psd filter=lfs diff=lfs merge=lfs -text\n");
        r.CommitAll("lfs");
    }, "git LFS");

    [Fact]
    public async Task Preflight_refuses_a_filter_in_info_attributes() =>
        await RefusesAsync(r => r.Write(".git/info/attributes", "* filter=evil\n"), "info/attributes");

    [Fact]
    public async Task Preflight_refuses_submodules() => await RefusesAsync(r =>
    {
        r.RunIn(r.Top, "clone", "-q", r.Root, "other");
        r.Run("submodule", "add", "-q", Path.Combine(r.Top, "other"), "lib");
        r.CommitAll("sub");
    }, "submodules");

    [Fact]
    public async Task Preflight_refuses_case_only_names() => await RefusesAsync(r =>
    {
        r.Write("SRC/x.txt", "x");
        r.CommitAll("case");
    }, "differ only in case (src, SRC)", "differ only in case (SRC, src)");

    [Fact]
    public async Task Preflight_refuses_ignorecase() => await RefusesAsync(r => r.Run("config", "core.ignorecase", "true"), "core.ignorecase");

    [Fact]
    public async Task Preflight_refuses_signing() => await RefusesAsync(r => r.Run("config", "commit.gpgsign", "true"), "git config commit.gpgsign false");

    [Fact]
    public async Task Preflight_refuses_a_branch_named_drover() => await RefusesAsync(r => r.Run("branch", "drover"), "branch named 'drover'");

    [Fact]
    public async Task G07_preflight_refuses_an_unfinished_merge_and_rebase()
    {
        await RefusesAsync(r =>
        {
            Diverge(r);
            Assert.NotEqual(0, r.Try(r.Root, "merge", "side").Code);
        }, "unfinished merge");
        await RefusesAsync(r =>
        {
            Diverge(r);
            Assert.NotEqual(0, r.Try(r.Root, "rebase", "side").Code);
        }, "unfinished rebase");
    }

    [Fact]
    public async Task Preflight_refuses_shallow_and_partial_clones()
    {
        using var repo = new GitTestRepo();
        repo.Write("more.txt", "more");
        repo.CommitAll("more");
        repo.Run("config", "uploadpack.allowFilter", "true");
        repo.RunIn(repo.Top, "clone", "-q", "--depth", "1", "file://" + repo.Root, "shallow");
        repo.RunIn(repo.Top, "clone", "-q", "--filter=blob:none", "file://" + repo.Root, "partial");
        await RefusesCheckAsync(repo, Path.Combine(repo.Top, "shallow"), "shallow clone");
        await RefusesCheckAsync(repo, Path.Combine(repo.Top, "partial"), "partial clone");
    }

    [Fact]
    public async Task Preflight_refuses_sha256()
    {
        using var repo = new GitTestRepo(initialise: false);
        repo.Run("init", "-q", "-b", "trunk", "--object-format=sha256");
        repo.Write("a", "a");
        repo.CommitAll("a");
        await RefusesCheckAsync(repo, repo.Root, "sha256");
    }

    private static void Diverge(GitTestRepo repo)
    {
        repo.Run("checkout", "-q", "-b", "side");
        repo.Write("README.md", "side\n");
        repo.CommitAll("side");
        repo.Run("checkout", "-q", "trunk");
        repo.Write("README.md", "trunk\n");
        repo.CommitAll("trunk");
    }

    private static async Task RefusesAsync(Action<GitTestRepo> arrange, params string[] messages)
    {
        using var repo = new GitTestRepo();
        arrange(repo);
        await RefusesCheckAsync(repo, repo.Root, messages);
    }

    private static async Task RefusesCheckAsync(GitTestRepo repo, string folder, params string[] messages)
    {
        var before = Directory.GetFileSystemEntries(folder).Length;
        var error = await Assert.ThrowsAsync<DroverException>(async () =>
        {
            var found = await Repository.OpenAsync(repo.Client(), folder, Ct);
            await Preflight.CheckAsync(found, "refs/heads/trunk", Ct);
        });
        Assert.Equal(ErrorCode.InvalidInput, error.Code);
        Assert.True(messages.Any(m => error.Message.Contains(m, StringComparison.Ordinal)), error.Message);
        Assert.DoesNotContain('\n', error.Message);
        Assert.InRange(Directory.GetFileSystemEntries(folder).Length, before, before + 1);
    }

    private static async Task RefusesOpenAsync(GitTestRepo repo, string folder, string message)
    {
        var error = await Assert.ThrowsAsync<DroverException>(() => Repository.OpenAsync(repo.Client(), folder, Ct));
        Assert.Equal(ErrorCode.InvalidInput, error.Code);
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }
}
