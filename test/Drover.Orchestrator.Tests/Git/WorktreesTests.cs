using System.Diagnostics;
using Drover.Orchestrator.Git;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.Git;

public sealed class WorktreesTests
{
    private static readonly AttemptName Name = new("task-k3f9", 1);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("task-k3f9", 1, true)]
    [InlineData("task-k3f9.12", 3, true)]
    [InlineData("task-k3f9", 0, false)]
    [InlineData("task-../x", 1, false)]
    [InlineData("task-K", 1, false)]
    [InlineData("-task-k", 1, false)]
    [InlineData("task-a.lock", 1, false)]
    [InlineData("task-a\n", 1, false)]
    public void G08_only_generated_ids_become_names(string task, int attempt, bool valid)
    {
        if (valid)
            Assert.Equal(new AttemptName(task, attempt), AttemptName.Parse(new AttemptName(task, attempt).Key));
        else
            Assert.Equal(ErrorCode.InvalidInput, Assert.Throws<DroverException>(() => new AttemptName(task, attempt)).Code);
    }

    [Fact]
    public async Task Makes_a_worktree_that_looks_clean_to_the_users_git_and_is_adopted_when_repeated()
    {
        using var repo = await new GitTestRepo(folder: "sp ace ü").OpenAsync();
        repo.Write("run.sh", "#!/bin/sh\n");
        repo.Run("update-index", "--add", "--chmod=+x", "run.sh");
        File.CreateSymbolicLink(Path.Combine(repo.Root, "link"), "README.md");
        repo.CommitAll("modes");
        var started = repo.Repository.Git.Started;
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        Assert.Equal(3, repo.Repository.Git.Started - started);
        Assert.False(made.Adopted);
        Assert.Equal("", repo.RunIn(made.Path, "status", "--porcelain"));
        Assert.Equal("drover/task-k3f9-1", repo.RunIn(made.Path, "branch", "--show-current"));
        Assert.Equal("README.md", new FileInfo(Path.Combine(made.Path, "link")).LinkTarget);
        Assert.Equal("", repo.Run("status", "--porcelain"));
        GitTestRepo.Write(made.Path, "new.txt", "work");
        var again = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        Assert.True(again.Adopted);
        Assert.Equal("work", File.ReadAllText(Path.Combine(again.Path, "new.txt")));
        Assert.Equal([Name], repo.Worktrees.List());
    }

    [Theory]
    [InlineData("worktree.intent")]
    [InlineData("worktree.added")]
    [InlineData("worktree.populated")]
    public async Task T06_a_kill_at_any_point_of_making_is_recovered_by_repeating(string point)
    {
        using var repo = await new GitTestRepo().OpenAsync();
        await Crash.AtAsync(point, () => repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct));
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        Assert.Equal("", repo.RunIn(made.Path, "status", "--porcelain"));
        Assert.Equal("hello\n", File.ReadAllText(Path.Combine(made.Path, "README.md")));
        Assert.True(Directory.GetFileSystemEntries(repo.Worktrees.Root).Length == 1, "nothing but the worktree is left");
    }

    [Fact]
    public async Task Locked_initializing_leftover_without_files_is_removed_with_double_force()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var path = repo.Worktrees.PathOf(Name);
        repo.Run("worktree", "add", "-q", "--no-checkout", "--lock", "--reason", "initializing", "-b", "drover/task-k3f9-1", path);
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        Assert.Null(made.QuarantinedAs);
        Assert.Equal("", repo.RunIn(made.Path, "status", "--porcelain"));
    }

    [Fact]
    public async Task G10_unknown_folder_with_files_is_moved_aside_never_deleted()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var path = repo.Worktrees.PathOf(Name);
        repo.Run("worktree", "add", "-q", "--lock", "--reason", "initializing", "-b", "drover/task-k3f9-1", path);
        GitTestRepo.Write(path, "precious.txt", "p");
        repo.RunIn(path, "commit", "-q", "--allow-empty", "-m", "only here");
        repo.RunIn(path, "checkout", "-q", "--detach");
        repo.RunIn(path, "commit", "-q", "--allow-empty", "-m", "detached, only here");
        var lost = repo.RunIn(path, "rev-parse", "HEAD");
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        Assert.Equal("p", File.ReadAllText(Path.Combine(made.QuarantinedAs!, "precious.txt")));
        Assert.False(made.Adopted);
        repo.Run("merge-base", "--is-ancestor", lost, Name.RescueRef);
        Assert.Equal("", repo.RunIn(made.Path, "status", "--porcelain"));
    }

    [Fact]
    public async Task F12_a_worktree_the_agent_deleted_is_made_again_with_its_commits()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        GitTestRepo.Write(made.Path, "a.txt", "a");
        repo.RunIn(made.Path, "add", "-A");
        repo.RunIn(made.Path, "commit", "-q", "-m", "agent");
        Directory.Delete(made.Path, true);
        var again = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        Assert.Equal("a", File.ReadAllText(Path.Combine(again.Path, "a.txt")));
        Assert.Equal("", repo.RunIn(again.Path, "status", "--porcelain"));
    }

    [Theory]
    [InlineData("other branch", nameof(WorktreeFault.None))]
    [InlineData("target", nameof(WorktreeFault.None))]
    [InlineData("detached", nameof(WorktreeFault.None))]
    [InlineData("orphan", nameof(WorktreeFault.None))]
    [InlineData("behind base", nameof(WorktreeFault.None))]
    [InlineData("locked", nameof(WorktreeFault.None))]
    [InlineData("no index", nameof(WorktreeFault.None))]
    [InlineData("link rewritten", nameof(WorktreeFault.LinkNotOurs))]
    [InlineData("link removed", nameof(WorktreeFault.LinkNotOurs))]
    [InlineData("own repository", nameof(WorktreeFault.LinkNotOurs))]
    [InlineData("back link rewritten", nameof(WorktreeFault.RegistrationGone))]
    [InlineData("registration removed", nameof(WorktreeFault.RegistrationGone))]
    public async Task F12_G18_work_in_a_worktree_the_agent_bent_is_found_and_committed(string kind, string faultName)
    {
        var fault = Enum.Parse<WorktreeFault>(faultName);
        using var repo = await BentAsync();
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        var control = new ControlFiles(repo.Repository);
        await control.CaptureAsync(made, Ct);
        Bend(repo, made, kind);
        var started = repo.Repository.Git.Started;
        var open = Assert.IsType<WorktreeState.Open>(await repo.Worktrees.OpenAsync(Name, made.BaseOid, Ct));
        Assert.Equal(started, repo.Repository.Git.Started);
        Assert.Equal((fault, made.GitDirectory), (open.Fault, open.Worktree.GitDirectory));
        var before = await control.CaptureAsync(open.Worktree, Ct);
        var differences = await control.CompareAsync(open.Worktree, before, Ct);
        Assert.Equal(fault != WorktreeFault.None, differences.Count > 0);
        Assert.Empty(await control.RestoreAsync(open.Worktree, before, differences, TimeProvider.System, Ct));
        var work = await repo.WorkCommit.CreateAsync(open.Worktree, GitTestRepo.Request("w"), Ct);
        Assert.Equal(["a.txt"], work.Changes.Select(c => c.Path));
        Assert.Equal(work.Oid, repo.Oid(Name.AttemptRef));
        repo.Run("merge-base", "--is-ancestor", made.BaseOid, work.Oid);
        if (fault == WorktreeFault.LinkNotOurs || kind == "back link rewritten")
            Assert.Equal(WorktreeFault.None, Assert.IsType<WorktreeState.Open>(await repo.Worktrees.OpenAsync(Name, made.BaseOid, Ct)).Fault);
        Assert.False(Directory.Exists(Path.Combine(repo.Worktrees.Root, ".quarantine")));
        Assert.Equal("a", File.ReadAllText(Path.Combine((await repo.Worktrees.EnsureAsync(Name, made.BaseOid, Ct)).Path, "a.txt")));
    }

    [Theory]
    [InlineData("other branch")]
    [InlineData("target")]
    [InlineData("detached")]
    [InlineData("orphan")]
    [InlineData("behind base")]
    [InlineData("locked")]
    [InlineData("no index")]
    [InlineData("link rewritten")]
    [InlineData("link removed")]
    [InlineData("own repository")]
    public async Task F12_a_killed_turns_bent_worktree_is_adopted_with_its_work(string kind)
    {
        using var repo = await BentAsync();
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        Bend(repo, made, kind);
        var again = await repo.Worktrees.EnsureAsync(Name, made.BaseOid, Ct);
        Assert.True(again.Adopted);
        Assert.Equal("a", File.ReadAllText(Path.Combine(again.Path, "a.txt")));
        Assert.Equal(["a.txt"], (await repo.WorkCommit.CreateAsync(again, GitTestRepo.Request("w"), Ct)).Changes.Select(c => c.Path));
        if (kind is "link removed" or "no index")
            Assert.Equal("", repo.RunIn(again.Path, "status", "--porcelain"));
    }

    [Fact]
    public async Task F12_nothing_to_open_is_said_and_nothing_is_made()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var tip = repo.Oid("trunk");
        Assert.Equal(WorktreeLoss.Folder, Assert.IsType<WorktreeState.Missing>(await repo.Worktrees.OpenAsync(Name, tip, Ct)).Loss);
        await Crash.AtAsync("worktree.added", () => repo.Worktrees.EnsureAsync(Name, tip, Ct));
        Assert.Equal(WorktreeLoss.Unfinished, Assert.IsType<WorktreeState.Missing>(await repo.Worktrees.OpenAsync(Name, tip, Ct)).Loss);
        var made = await repo.Worktrees.EnsureAsync(Name, tip, Ct);
        var aside = Path.Combine(repo.Top, "aside");
        Directory.Move(made.Path, aside);
        Directory.CreateSymbolicLink(made.Path, aside);
        Assert.Equal(WorktreeLoss.Folder, Assert.IsType<WorktreeState.Missing>(await repo.Worktrees.OpenAsync(Name, tip, Ct)).Loss);
        Directory.Delete(made.Path);
        var missing = await repo.Worktrees.OpenAsync(Name, tip, Ct);
        Assert.Equal(ErrorCode.Conflict, Assert.Throws<DroverException>(() => missing.Require()).Code);
        Assert.False(Directory.Exists(made.Path));
        Assert.True(repo.HasRef(Name.Branch));
    }

    [Fact]
    public async Task G10_a_repository_the_agent_made_in_place_of_ours_is_kept_whole()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        Bend(repo, made, "own repository");
        var removed = await repo.Worktrees.RemoveAsync(Name, Ct);
        Assert.Equal("own", repo.RunIn(removed.QuarantinedAs!, "log", "-1", "--format=%s"));
        AssertGone(repo, made);
    }

    [Fact]
    public async Task Branch_from_another_base_is_rescued_and_reset()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        repo.Run("checkout", "-q", "--orphan", "drover/task-k3f9-1");
        repo.Run("commit", "-q", "-m", "elsewhere");
        var other = repo.Oid("HEAD");
        repo.Run("checkout", "-q", "trunk");
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        Assert.Equal(repo.Oid("trunk"), repo.RunIn(made.Path, "rev-parse", "HEAD"));
        repo.Run("merge-base", "--is-ancestor", other, Name.RescueRef);
    }

    [Fact]
    public async Task G08_many_at_once_do_not_race()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var made = await Task.WhenAll(Enumerable.Range(1, 8).Select(n => repo.Worktrees.EnsureAsync(new AttemptName("task-a" + n, 1), repo.Oid("trunk"), Ct)));
        Assert.All(made, w => Assert.Equal("", repo.RunIn(w.Path, "status", "--porcelain")));
    }

    [Fact]
    public async Task G10_everything_is_under_a_ref_before_removal_ignored_files_too()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (made, work) = await repo.WorkAsync("task-k3f9", p => GitTestRepo.Write(p, "done.txt", "d"));
        GitTestRepo.Write(made.Path, "untracked.txt", "u");
        GitTestRepo.Write(made.Path, "local.log", "ignored");
        GitTestRepo.Write(made.Path, "big.log", new byte[(2 << 20) + 1]);
        var removed = await repo.Worktrees.RemoveAsync(Name, Ct);
        Assert.Equal(repo.Oid(Name.RescueRef), removed.RescueOid);
        Assert.Equal("u", repo.Run("show", Name.RescueRef + ":untracked.txt"));
        Assert.Equal("ignored", repo.Run("show", Name.RescueRef + ":local.log"));
        Assert.Equal(["big.log"], removed.NotSaved);
        Assert.Equal(work.Oid, repo.Oid(Name.AttemptRef));
        AssertGone(repo, made);
        Assert.Null((await repo.Worktrees.RemoveAsync(Name, Ct)).RescueOid);
    }

    [Fact]
    public async Task G10_no_rescue_commit_when_the_attempt_holds_everything()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (made, _) = await repo.WorkAsync("task-k3f9", p => GitTestRepo.Write(p, "done.txt", "d"));
        Assert.Null((await repo.Worktrees.RemoveAsync(Name, Ct)).RescueOid);
        Assert.False(repo.HasRef(Name.RescueRef));
        AssertGone(repo, made);
    }

    [Theory]
    [InlineData("remove.saved")]
    [InlineData("remove.moved")]
    [InlineData("remove.unregistered")]
    public async Task G10_removal_killed_at_any_point_is_finished_by_repeating(string point)
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        GitTestRepo.Write(made.Path, "x.txt", "x");
        repo.RunIn(made.Path, "commit", "-q", "--allow-empty", "-m", "agent");
        var tip = repo.RunIn(made.Path, "rev-parse", "HEAD");
        await Crash.AtAsync(point, () => repo.Worktrees.RemoveAsync(Name, Ct));
        await repo.Worktrees.RemoveAsync(Name, Ct);
        Assert.Equal("x", repo.Run("show", Name.RescueRef + ":x.txt"));
        repo.Run("merge-base", "--is-ancestor", tip, Name.RescueRef);
        AssertGone(repo, made);
        Assert.False(Directory.Exists(Path.Combine(repo.Worktrees.Root, ".trash")));
    }

    [Fact]
    public async Task G19_nested_repository_is_kept_whole_instead_of_removed()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        repo.RunIn(made.Path, "init", "-q", "nested");
        GitTestRepo.Write(made.Path, "nested/n.txt", "n");
        var removed = await repo.Worktrees.RemoveAsync(Name, Ct);
        Assert.Equal("n", File.ReadAllText(Path.Combine(removed.QuarantinedAs!, "nested/n.txt")));
        AssertGone(repo, made);
    }

    [Fact]
    public async Task G10_paths_git_cannot_save_keep_the_folder()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        GitTestRepo.Write(made.Path, ".GIT/config", "c");
        var removed = await repo.Worktrees.RemoveAsync(Name, Ct);
        Assert.Equal("c", File.ReadAllText(Path.Combine(removed.QuarantinedAs!, ".GIT/config")));
        AssertGone(repo, made);
    }

    [Fact]
    public async Task G10_a_living_process_inside_stops_removal()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        using var sleeper = Process.Start(new ProcessStartInfo("sleep", ["600"]) { WorkingDirectory = made.Path })!;
        var error = await Assert.ThrowsAsync<DroverException>(() => repo.Worktrees.RemoveAsync(Name, Ct));
        Assert.Contains($"process {sleeper.Id} (sleep)", error.Message, StringComparison.Ordinal);
        sleeper.Kill();
        await sleeper.WaitForExitAsync(Ct);
        await repo.Worktrees.RemoveAsync(Name, Ct);
        AssertGone(repo, made);
    }

    [Fact]
    public async Task F01_the_git_of_a_killed_orchestrator_is_waited_for_before_its_files_are_rebuilt()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        await Crash.AtAsync("worktree.added", () => repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct));
        var orphan = Path.Combine(repo.Top, "git");
        File.Copy("/bin/sleep", orphan);
        var info = new ProcessStartInfo(orphan, ["600"]);
        info.Environment["DROVER_WORK_TREE"] = repo.Worktrees.PathOf(Name);
        using var git = Process.Start(info)!;
        var ensure = repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        var first = await Task.WhenAny(ensure, new PeriodicTimer(TimeSpan.FromMilliseconds(300)).WaitForNextTickAsync(Ct).AsTask());
        Assert.NotSame(ensure, first);
        git.Kill();
        Assert.Equal("", repo.RunIn((await ensure).Path, "status", "--porcelain"));
    }

    [Fact]
    public async Task Root_may_be_elsewhere_and_behind_a_link()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        Directory.CreateDirectory(Path.Combine(repo.Top, "real"));
        Directory.CreateSymbolicLink(Path.Combine(repo.Top, "linked"), Path.Combine(repo.Top, "real"));
        var worktrees = new Worktrees(repo.Repository, TimeProvider.System, Path.Combine(repo.Top, "linked/wt"));
        var made = await worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        Assert.Equal("", repo.RunIn(made.Path, "status", "--porcelain"));
        Assert.True((await worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct)).Adopted);
        await worktrees.RemoveAsync(Name, Ct);
        AssertGone(repo, made);
    }

    [Fact]
    public async Task G13_branch_is_deleted_in_spite_of_a_stale_packed_refs_lock()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        repo.Run("pack-refs", "--all");
        var file = Path.Combine(repo.Root, ".git/packed-refs.lock");
        File.WriteAllText(file, "");
        File.SetLastWriteTimeUtc(file, TimeProvider.System.GetUtcNow().UtcDateTime.AddMinutes(-1));
        await repo.Worktrees.RemoveAsync(Name, Ct);
        AssertGone(repo, made);
    }

    [Fact]
    public async Task Unreadable_modes_do_not_stop_removal()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var made = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        GitTestRepo.Write(made.Path, "obj/x.log", "x");
        File.SetUnixFileMode(Path.Combine(made.Path, "obj"), UnixFileMode.UserRead | UnixFileMode.UserExecute);
        await repo.Worktrees.RemoveAsync(Name, Ct);
        AssertGone(repo, made);
    }

    private static async Task<GitTestRepo> BentAsync()
    {
        var repo = new GitTestRepo();
        repo.Run("commit", "-q", "--allow-empty", "-m", "base");
        repo.Run("branch", "target");
        repo.Run("checkout", "-q", "-b", "mine");
        return await repo.OpenAsync();
    }

    // What agents do to their worktree, always with work in no commit.
    private static void Bend(GitTestRepo repo, Worktree worktree, string kind)
    {
        GitTestRepo.Write(worktree.Path, "a.txt", "a");
        var link = Path.Combine(worktree.Path, ".git");
        string[][] commands = kind switch
        {
            "other branch" => [["checkout", "-q", "-b", "elsewhere"], ["commit", "-q", "--allow-empty", "-m", "elsewhere"]],
            "target" => [["checkout", "-q", "target"]],
            "detached" => [["checkout", "-q", "--detach"]],
            "orphan" => [["checkout", "-q", "--orphan", "lonely"]],
            "behind base" => [["reset", "-q", "--hard", "HEAD~1"]],
            "locked" => [["worktree", "lock", "."]],
            _ => [],
        };
        foreach (var command in commands)
            repo.RunIn(worktree.Path, command);
        switch (kind)
        {
            case "no index":
                File.Delete(Path.Combine(worktree.GitDirectory, "index"));
                break;
            case "link rewritten":
                File.WriteAllText(link, $"gitdir: {repo.Root}/.git\n");
                break;
            case "link removed":
                File.Delete(link);
                break;
            case "own repository":
                File.Delete(link);
                repo.RunIn(worktree.Path, "init", "-q");
                repo.RunIn(worktree.Path, "commit", "-q", "--allow-empty", "-m", "own");
                break;
            case "back link rewritten":
                File.WriteAllText(Path.Combine(worktree.GitDirectory, "gitdir"), "/nowhere/.git\n");
                break;
            case "registration removed":
                Posix.Delete(worktree.GitDirectory);
                break;
        }
    }

    private static void AssertGone(GitTestRepo repo, Worktree worktree)
    {
        Assert.False(Directory.Exists(worktree.Path));
        Assert.False(repo.HasRef(worktree.Name.Branch));
        Assert.DoesNotContain(worktree.Path + "\n", repo.Run("worktree", "list") + "\n", StringComparison.Ordinal);
        Assert.False(Directory.Exists(worktree.GitDirectory));
    }
}

/// <summary>Stops an operation at a named point as a kill would.</summary>
internal static class Crash
{
    public static async Task AtAsync(string point, Func<Task> operation)
    {
        GitCrash.Hook = p =>
        {
            if (p == point)
                throw new GitCrashException(p);
        };
        await Assert.ThrowsAsync<GitCrashException>(operation);
        GitCrash.Hook = null;
    }
}
