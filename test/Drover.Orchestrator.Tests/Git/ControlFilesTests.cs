using Drover.Orchestrator.Git;

namespace Drover.Orchestrator.Tests.Git;

public sealed class ControlFilesTests
{
    private static readonly AttemptName Name = new("task-k3f9", 1);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task G18_a_normal_agent_and_a_working_user_are_no_tampering()
    {
        using var repo = new GitTestRepo();
        repo.Run("branch", "merged");
        repo.Run("branch", "feature");
        repo.Run("tag", "v1");
        await repo.OpenAsync();
        var (control, worktree, before) = await BeginAsync(repo);
        // The agent, in its worktree.
        GitTestRepo.Write(worktree.Path, "a.txt", "a");
        repo.RunIn(worktree.Path, "add", "-A");
        repo.RunIn(worktree.Path, "commit", "-q", "-m", "agent");
        repo.RunIn(worktree.Path, "stash", "list");
        repo.RunIn(worktree.Path, "config", "branch.drover/task-k3f9-1.remote", "origin");
        // Another attempt comes, and a landing.
        Assert.IsType<LandResult.Landed>(await repo.LandTaskAsync("task-other", p => GitTestRepo.Write(p, "o.txt", "o")));
        await repo.Worktrees.RemoveAsync(new AttemptName("task-other", 1), Ct);
        // The user: commits, amends, makes and deletes branches, rebases a branch, tags, packs refs.
        repo.Write("u.txt", "u");
        repo.CommitAll("user");
        repo.Run("commit", "-q", "--amend", "-m", "amended");
        repo.Run("branch", "-q", "-D", "merged");
        repo.Run("checkout", "-q", "feature");
        repo.Run("commit", "-q", "--allow-empty", "-m", "f");
        repo.Run("commit", "-q", "--amend", "--allow-empty", "-m", "f2");
        repo.Run("tag", "v2");
        repo.Run("worktree", "add", "-q", "-b", "new", "../new");
        repo.Run("pack-refs", "--all");
        repo.Run("update-server-info");
        Assert.Empty(await control.CompareAsync(worktree, before, Ct));
    }

    [Theory]
    [InlineData("config")]
    [InlineData("config.worktree")]
    [InlineData("hooks/pre-commit")]
    [InlineData("hooks/sub/deep")]
    [InlineData("info/attributes")]
    [InlineData("info/exclude")]
    [InlineData("objects/info/alternates")]
    [InlineData("worktree:.git")]
    [InlineData("worktrees/task-k3f9-1/commondir")]
    public async Task G18_a_changed_control_file_is_named_kept_aside_and_put_back(string name)
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (control, worktree, before) = await BeginAsync(repo);
        var path = name == "worktree:.git" ? Path.Combine(worktree.Path, ".git") : Path.Combine(repo.Root, ".git", name);
        var had = File.Exists(path) ? File.ReadAllBytes(path) : null;
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.AppendAllText(path, "\n[core]\n\tfsmonitor = evil\n");
        File.SetUnixFileMode(path, (UnixFileMode)0b111_101_101);
        var found = await control.CompareAsync(worktree, before, Ct);
        Assert.Equal([name], found.Select(d => d.Name));
        Assert.Empty(await control.RestoreAsync(worktree, before, found, TimeProvider.System, Ct));
        Assert.Equal(had, File.Exists(path) ? File.ReadAllBytes(path) : null);
        Assert.Empty(await control.CompareAsync(worktree, before, Ct));
        var kept = Assert.Single(Directory.GetFiles(Path.Combine(repo.Repository.StateDirectory, "tampered"), "*", SearchOption.AllDirectories));
        Assert.Contains("evil", File.ReadAllText(kept), StringComparison.Ordinal);
    }

    [Fact]
    public async Task G18_links_removals_and_mode_changes_are_seen()
    {
        using var repo = new GitTestRepo();
        GitTestRepo.Write(repo.Root, ".git/hooks/commit-msg", "#!/bin/sh\n");
        GitTestRepo.Write(repo.Root, ".git/hooks/pre-push", "#!/bin/sh\n");
        await repo.OpenAsync();
        var (control, worktree, before) = await BeginAsync(repo);
        File.Delete(Path.Combine(repo.Root, ".git/hooks/commit-msg"));
        File.SetUnixFileMode(Path.Combine(repo.Root, ".git/hooks/pre-push"), (UnixFileMode)0b111_101_101);
        File.CreateSymbolicLink(Path.Combine(repo.Root, ".git/hooks/post-checkout"), "/bin/true");
        var found = await control.CompareAsync(worktree, before, Ct);
        Assert.Equal(["hooks/commit-msg", "hooks/post-checkout", "hooks/pre-push"], found.Select(d => d.Name));
        await control.RestoreAsync(worktree, before, found, TimeProvider.System, Ct);
        Assert.Empty(await control.CompareAsync(worktree, before, Ct));
        Assert.True(File.Exists("/bin/true"));
    }

    [Fact]
    public async Task G18_refs_moved_back_or_away_are_named_and_put_back()
    {
        using var repo = new GitTestRepo();
        repo.Run("commit", "-q", "--allow-empty", "-m", "second");
        repo.Run("branch", "lonely");
        repo.Run("tag", "v1");
        repo.Run("checkout", "-q", "lonely");
        repo.Run("commit", "-q", "--allow-empty", "-m", "only on lonely");
        repo.Run("checkout", "-q", "trunk");
        await repo.OpenAsync();
        var (control, worktree, before) = await BeginAsync(repo);
        var (trunk, lonely) = (repo.Oid("trunk"), repo.Oid("lonely"));
        repo.RunIn(worktree.Path, "update-ref", "refs/heads/trunk", "trunk~1");
        repo.RunIn(worktree.Path, "branch", "-q", "-D", "lonely");
        repo.RunIn(worktree.Path, "tag", "-f", "v1", "trunk~0");
        repo.RunIn(worktree.Path, "update-ref", "refs/replace/" + trunk, trunk + "~1");
        var found = await control.CompareAsync(worktree, before, Ct);
        Assert.Equal(["refs/heads/lonely", "refs/heads/trunk", "refs/replace/" + trunk, "refs/tags/v1"], found.Select(d => d.Name).Order(StringComparer.Ordinal));
        Assert.Empty(await control.RestoreAsync(worktree, before, found, TimeProvider.System, Ct));
        Assert.Equal((trunk, lonely), (repo.Oid("trunk"), repo.Oid("lonely")));
        Assert.Empty(await control.CompareAsync(worktree, before, Ct));
        Assert.Equal("", repo.Run("status", "--porcelain"));
    }

    [Fact]
    public async Task G18_commits_an_agent_made_on_the_target_are_taken_back_unless_others_stand_on_them()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        repo.Run("checkout", "-q", "-b", "mine");
        var (control, worktree, before) = await BeginAsync(repo);
        var tip = repo.Oid("trunk");
        repo.RunIn(worktree.Path, "checkout", "-q", "trunk");
        repo.RunIn(worktree.Path, "commit", "-q", "--allow-empty", "-m", "past the gate");
        var found = await control.CompareAsync(worktree, before, Ct);
        Assert.Equal(["refs/heads/trunk"], found.Select(d => d.Name));
        Assert.Empty(await control.RestoreAsync(worktree, before, found, TimeProvider.System, Ct));
        Assert.Equal(tip, repo.Oid("trunk"));
        repo.RunIn(worktree.Path, "commit", "-q", "--allow-empty", "-m", "past the gate again");
        await repo.LandTaskAsync("task-other", p => GitTestRepo.Write(p, "o.txt", "o"));
        var landed = repo.Oid("trunk");
        Assert.Equal(["refs/heads/trunk"], await control.RestoreAsync(worktree, before, await control.CompareAsync(worktree, before, Ct), TimeProvider.System, Ct));
        Assert.Equal(landed, repo.Oid("trunk"));
    }

    [Fact]
    public async Task G18_after_a_crash_the_state_before_the_agent_counts()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (_, worktree, _) = await BeginAsync(repo);
        repo.RunIn(worktree.Path, "config", "core.pager", "evil");
        var control = new ControlFiles(repo.Repository);
        var again = await control.CaptureAsync(worktree, Ct);
        Assert.Equal(["config"], (await control.CompareAsync(worktree, again, Ct)).Select(d => d.Name));
        control.Forget(Name);
        Assert.Empty(await control.CompareAsync(worktree, await control.CaptureAsync(worktree, Ct), Ct));
    }

    [Fact]
    public async Task G15_changed_files_of_drovers_own_git_directory_are_rewritten_before_use()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var worktree = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        var sentinel = Path.Combine(repo.Top, "ran");
        var config = Path.Combine(repo.Repository.StateDirectory, "git/config");
        File.AppendAllText(config, $"[filter \"x\"]\n\tclean = echo >> '{sentinel}'; cat\n");
        GitTestRepo.Write(repo.Repository.StateDirectory, "git/info/attributes", "* filter=x\n");
        GitTestRepo.Write(worktree.Path, "a.txt", "a");
        await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("w"), Ct);
        Assert.False(File.Exists(sentinel));
        Assert.DoesNotContain("filter", File.ReadAllText(config), StringComparison.Ordinal);
    }

    private static async Task<(ControlFiles, Worktree, ControlCapture)> BeginAsync(GitTestRepo repo)
    {
        var worktree = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        var control = new ControlFiles(repo.Repository);
        return (control, worktree, await control.CaptureAsync(worktree, Ct));
    }
}
