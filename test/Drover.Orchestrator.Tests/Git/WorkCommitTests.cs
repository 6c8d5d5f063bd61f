using Drover.Orchestrator.Git;

namespace Drover.Orchestrator.Tests.Git;

public sealed class WorkCommitTests
{
    private static readonly AttemptName Name = new("task-k3f9", 1);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Commit_is_the_exact_folder_deterministic_and_anchored()
    {
        using var repo = await new GitTestRepo(folder: "ü space").OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p =>
        {
            GitTestRepo.Write(p, "nëw file.txt", "n");
            File.Delete(Path.Combine(p, "src/two.txt"));
            GitTestRepo.Write(p, "tool.sh", "#!/bin/sh\n");
            File.SetUnixFileMode(Path.Combine(p, "tool.sh"), (UnixFileMode)0b111_101_101);
            File.CreateSymbolicLink(Path.Combine(p, "l"), "src/one.txt");
            GitTestRepo.Write(p, "ignored.log", "no");
        });
        Assert.Equal(["l", "nëw file.txt", "src/two.txt", "tool.sh"], work.Changes.Select(c => c.Path).Order(StringComparer.Ordinal));
        Assert.Empty(work.Findings);
        Assert.False(work.IsNoOp);
        Assert.Equal(work.Oid, repo.Oid(Name.AttemptRef));
        Assert.Equal(work.Oid, repo.Oid(Name.Branch));
        Assert.Equal("", repo.RunIn(worktree.Path, "status", "--porcelain"));
        Assert.Contains("100755", repo.Run("ls-tree", work.Oid, "tool.sh"), StringComparison.Ordinal);
        Assert.Contains("120000", repo.Run("ls-tree", work.Oid, "l"), StringComparison.Ordinal);
        Assert.Equal("task-k3f9/1", repo.Run("log", "-1", "--format=%(trailers:key=Drover-Work,valueonly)", work.Oid).Trim());
        Assert.Equal("Ada Lovelace <ada@example.com> 1700000000", repo.Run("log", "-1", "--format=%an <%ae> %at", work.Oid));
        var again = await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("task-k3f9"), Ct);
        Assert.Equal(work.Oid, again.Oid);
    }

    [Theory]
    [InlineData("work.staged")]
    [InlineData("work.tree")]
    [InlineData("work.commit")]
    [InlineData("work.anchor")]
    [InlineData("work.anchored")]
    public async Task T06_a_kill_at_any_point_gives_the_same_commit_when_repeated(string point)
    {
        using var repo = await new GitTestRepo().OpenAsync();
        using var twin = await new GitTestRepo().OpenAsync();
        var (_, expected) = await twin.WorkAsync("task-k3f9", p => GitTestRepo.Write(p, "a.txt", "a"));
        var worktree = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        GitTestRepo.Write(worktree.Path, "a.txt", "a");
        await Crash.AtAsync(point, () => repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("task-k3f9"), Ct));
        var adopted = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        var work = await repo.WorkCommit.CreateAsync(adopted, GitTestRepo.Request("task-k3f9"), Ct);
        Assert.Equal(expected.Oid, work.Oid);
        Assert.Equal(work.Oid, repo.Oid(Name.AttemptRef));
        Assert.Equal("", repo.RunIn(worktree.Path, "status", "--porcelain"));
    }

    [Fact]
    public async Task Nothing_changed_is_a_no_op_with_its_tree()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (_, work) = await repo.WorkAsync("task-k3f9", p => File.SetLastWriteTimeUtc(Path.Combine(p, "README.md"), DateTime.UnixEpoch));
        Assert.True(work.IsNoOp);
        Assert.Equal(repo.Oid("trunk^{tree}"), work.Tree);
    }

    [Fact]
    public async Task Agents_own_commits_stay_and_a_second_turn_builds_on_the_first()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var agent = "";
        var (worktree, first) = await repo.WorkAsync("task-k3f9", p =>
        {
            GitTestRepo.Write(p, "a.txt", "a");
            repo.RunIn(p, "add", "-A");
            repo.RunIn(p, "commit", "-q", "-m", "agent\n\nDrover-Task: task-other\nDrover-Attempt: 1");
            agent = repo.RunIn(p, "rev-parse", "HEAD");
            GitTestRepo.Write(p, "b.txt", "b");
        });
        Assert.Equal(agent, repo.Oid(first.Oid + "^"));
        GitTestRepo.Write(worktree.Path, "c.txt", "c");
        var second = await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("more"), Ct);
        Assert.Equal(first.Oid, repo.Oid(second.Oid + "^"));
        Assert.Equal(["a.txt", "b.txt", "c.txt"], second.Changes.Select(c => c.Path).Order(StringComparer.Ordinal));
    }

    [Fact]
    public async Task Agent_on_a_detached_head_or_another_branch_loses_no_commit()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var agent = "";
        var (_, work) = await repo.WorkAsync("task-k3f9", p =>
        {
            repo.RunIn(p, "checkout", "-q", "--detach");
            GitTestRepo.Write(p, "a.txt", "a");
            repo.RunIn(p, "add", "-A");
            repo.RunIn(p, "commit", "-q", "-m", "detached");
            agent = repo.RunIn(p, "rev-parse", "HEAD");
        });
        repo.Run("merge-base", "--is-ancestor", agent, work.Oid);
        var orphan = "";
        await repo.WorkAsync("task-other", p =>
        {
            repo.RunIn(p, "checkout", "-q", "--orphan", "elsewhere");
            repo.RunIn(p, "commit", "-q", "-m", "orphan");
            repo.RunIn(p, "checkout", "-q", "--detach");
            orphan = repo.RunIn(p, "rev-parse", "HEAD");
            repo.RunIn(p, "branch", "-q", "-D", "elsewhere");
        });
        repo.Run("merge-base", "--is-ancestor", orphan, new AttemptName("task-other", 1).RescueRef);
    }

    [Fact]
    public async Task An_agent_on_the_target_neither_holds_a_landing_nor_reverts_it()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        repo.Run("checkout", "-q", "-b", "mine");
        var worktree = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        repo.RunIn(worktree.Path, "checkout", "-q", "trunk");
        GitTestRepo.Write(worktree.Path, "README.md", "agent\n");
        Assert.IsType<LandResult.Landed>(await repo.LandTaskAsync("task-other", p =>
        {
            GitTestRepo.Write(p, "README.md", "other\n");
            GitTestRepo.Write(p, "src/one.txt", "landed\n");
        }));
        Assert.Equal("agent\n", File.ReadAllText(Path.Combine(worktree.Path, "README.md")));
        var work = await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("w"), Ct);
        Assert.Equal(["README.md"], work.Changes.Select(c => c.Path));
        Assert.Equal(["README.md"], Assert.IsType<MergeOutcome.Conflict>(await repo.Landing.MergeAsync(repo.Oid("trunk"), work.Oid, Ct)).Paths);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(50)]
    public async Task F03_a_torn_or_missing_seed_index_changes_nothing_but_speed(int length)
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var worktree = await repo.Worktrees.EnsureAsync(Name, repo.Oid("trunk"), Ct);
        var seed = worktree.SeedIndex(repo.Repository);
        File.WriteAllBytes(seed, File.ReadAllBytes(seed)[..length]);
        GitTestRepo.Write(worktree.Path, "a.txt", "a");
        var work = await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("w"), Ct);
        Assert.Equal(["a.txt"], work.Changes.Select(c => c.Path));
        File.Delete(seed);
        Assert.Null((await repo.Worktrees.RemoveAsync(Name, Ct)).RescueOid);
    }

    [Fact]
    public async Task F02_git_killed_at_random_moments_of_a_tasks_life_loses_nothing()
    {
        using var repo = new GitTestRepo();
        for (var i = 0; i < 100; i++)
            repo.Write($"many/{i}.txt", $"old {i}\n");
        repo.CommitAll("many");
        await repo.OpenAsync();
        var (killed, tip) = (0, repo.Oid("trunk"));
        for (var round = 0; round < 8; round++)
        {
            var name = new AttemptName($"task-r{round}", 1);
            var doomed = repo.Doomed(2 + round);
            var worktrees = new Worktrees(doomed, TimeProvider.System);
            for (var k = 0; k < 3; k++)
                killed += await GitTestRepo.SurvivesAsync(() => worktrees.EnsureAsync(name, tip, Ct)) ? 0 : 1;
            repo.AgeLocks();
            var worktree = await repo.Worktrees.EnsureAsync(name, tip, Ct);
            Assert.Equal("", repo.RunIn(worktree.Path, "status", "--porcelain"));
            for (var i = 0; i < 100; i++)
                GitTestRepo.Write(worktree.Path, $"many/{i}.txt", $"round {round} {i}\n");
            for (var k = 0; k < 3; k++)
                killed += await GitTestRepo.SurvivesAsync(() => new WorkCommit(doomed, TimeProvider.System).CreateAsync(worktree, GitTestRepo.Request("w"), Ct)) ? 0 : 1;
            repo.AgeLocks();
            var work = await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("w"), Ct);
            Assert.Equal(100, work.Changes.Count);
            Assert.Equal(tip, repo.Oid(work.Oid + "^"));
            GitTestRepo.Write(worktree.Path, "late.txt", "late");
            for (var k = 0; k < 3; k++)
                killed += await GitTestRepo.SurvivesAsync(() => worktrees.RemoveAsync(name, Ct)) ? 0 : 1;
            repo.AgeLocks();
            await repo.Worktrees.RemoveAsync(name, Ct);
            Assert.Equal(work.Oid, repo.Oid(name.AttemptRef));
            Assert.Equal("late", repo.Run("show", name.RescueRef + ":late.txt"));
            Assert.False(repo.HasRef(name.Branch));
            Assert.Single(repo.Run("worktree", "list").Split('\n'));
        }
        TestContext.Current.TestOutputHelper?.WriteLine($"{killed} operations ended by a killed git");
        Assert.Equal("", repo.Run("fsck", "--no-dangling", "--no-progress"));
    }

    [Fact]
    public void G03_trailers_are_removed_from_messages()
    {
        Assert.Equal("Title\n\nbody", WorkCommit.CleanMessage("Title\r\nDrover-Task: task-x\n  drover-attempt: 1\nDROVER-WORK: y\n\nbody\n"));
        Assert.Equal("Work", WorkCommit.CleanMessage("Drover-Task: x"));
        Assert.DoesNotContain('\u001b', WorkCommit.CleanMessage("a\u001b[31mb"));
    }

    [Fact]
    public async Task An_agents_index_cannot_hide_changes()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (_, work) = await repo.WorkAsync("task-k3f9", p =>
        {
            repo.RunIn(p, "update-index", "--assume-unchanged", "README.md");
            repo.RunIn(p, "update-index", "--skip-worktree", "src/one.txt");
            GitTestRepo.Write(p, "README.md", "changed\n");
            GitTestRepo.Write(p, "src/one.txt", "changed\n");
        });
        Assert.Equal(["README.md", "src/one.txt"], work.Changes.Select(c => c.Path).Order(StringComparer.Ordinal));
    }

    [Fact]
    public async Task G19_nested_repositories_are_reported_with_their_files()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (_, work) = await repo.WorkAsync("task-k3f9", p =>
        {
            repo.RunIn(p, "init", "-q", "empty");
            GitTestRepo.Write(p, "empty/e.txt", "e");
            repo.RunIn(p, "init", "-q", "full");
            GitTestRepo.Write(p, "full/f.txt", "f");
            repo.RunIn(p, "-C", "full", "add", "-A");
            repo.RunIn(p, "-C", "full", "commit", "-q", "-m", "f");
            GitTestRepo.Write(p, "ok.txt", "ok");
        });
        Assert.Equal(["ok.txt"], work.Changes.Select(c => c.Path));
        var nested = work.Findings.Where(f => f.Kind == FindingKind.NestedRepository).ToList();
        Assert.Equal([["empty", "empty/e.txt"], ["full", "full/f.txt"]], nested.Select(f => f.Paths));
    }

    [Fact]
    public async Task G19_findings_name_secrets_large_files_links_and_git_like_paths()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (_, work) = await repo.WorkAsync("task-k3f9", p =>
        {
            GitTestRepo.Write(p, ".env", "TOKEN=1");
            GitTestRepo.Write(p, ".env.example", "TOKEN=");
            GitTestRepo.Write(p, "cert/server.key", "k");
            GitTestRepo.Write(p, "notes.txt", "some text in front of it, more than sixty-four bytes in all\n-----BEGIN RSA PRIVATE KEY-----\nabc\n");
            GitTestRepo.Write(p, "big.bin", new byte[(10 << 20) + 1]);
            File.CreateSymbolicLink(Path.Combine(p, "out"), "../../../../etc/passwd");
            File.CreateSymbolicLink(Path.Combine(p, "abs"), "/etc/passwd");
            File.CreateSymbolicLink(Path.Combine(p, "src/in"), "../README.md");
            GitTestRepo.Write(p, "git~1/config", "c");
            GitTestRepo.Write(p, ".GIT/config", "c");
            GitTestRepo.Write(p, ".gitattributes", "*.x filter=evil\n");
        });
        Assert.Equal([".env", "cert/server.key", "notes.txt"], Of(work, FindingKind.Secret));
        Assert.Equal(["big.bin"], Of(work, FindingKind.LargeFile));
        Assert.Equal(["abs", "out"], Of(work, FindingKind.SymlinkLeavesTree));
        Assert.Equal([".GIT/config", "git~1/config"], Of(work, FindingKind.GitLikePath));
        Assert.Equal([".gitattributes"], Of(work, FindingKind.Unsupported));
    }

    [Fact]
    public async Task Mass_deletions_wait_for_a_person_and_moves_do_not()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        for (var i = 0; i < 60; i++)
            repo.Write($"many/{i}.txt", $"file {i}\n");
        repo.CommitAll("many");
        var (_, deleted) = await repo.WorkAsync("task-del", p => Directory.Delete(Path.Combine(p, "many"), true));
        Assert.Equal(50, Assert.Single(deleted.Findings, f => f.Kind == FindingKind.Deletions).Paths.Count);
        var (_, moved) = await repo.WorkAsync("task-mov", p => Directory.Move(Path.Combine(p, "many"), Path.Combine(p, "moved")));
        Assert.Empty(moved.Findings);
    }

    [Fact]
    public async Task F12_deleting_everything_waits_even_in_a_small_repository_and_a_deleted_folder_is_an_error()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p =>
        {
            foreach (var file in repo.Run("ls-files").Split('\n'))
                File.Delete(Path.Combine(p, file));
        });
        Assert.Equal([FindingKind.Deletions], work.Findings.Select(f => f.Kind));
        Directory.Delete(worktree.Path, recursive: true);
        var error = await Assert.ThrowsAsync<Drover.Workflows.DroverException>(() => repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("w"), Ct));
        Assert.Equal(Drover.Workflows.ErrorCode.Conflict, error.Code);
    }

    [Theory]
    [InlineData("pipe", "src/two.txt")]
    [InlineData("pipe and repository", "src/two.txt")]
    [InlineData("tracked", "src/two.txt")]
    [InlineData("new", "secret.txt")]
    [InlineData("folder", "closed")]
    public async Task F12_what_git_cannot_read_waits_for_a_person_and_the_rest_is_committed(string kind, string path)
    {
        using var repo = await new GitTestRepo().OpenAsync();
        Assert.SkipWhen(!kind.StartsWith("pipe", StringComparison.Ordinal) && CanReadEverything(repo), "this user can read every file");
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p =>
        {
            GitTestRepo.Write(p, "a.txt", "a");
            File.Delete(Path.Combine(p, "README.md"));
            var file = Path.Combine(p, path);
            if (kind.StartsWith("pipe", StringComparison.Ordinal))
            {
                File.Delete(file);
                using var make = System.Diagnostics.Process.Start("mkfifo", [file]);
                make.WaitForExit();
                if (kind != "pipe")
                    repo.RunIn(p, "init", "-q", "nested");
                return;
            }
            GitTestRepo.Write(p, kind == "folder" ? path + "/x.txt" : path, "x");
            if (kind == "folder")
            {
                // Ignored folders are nobody's work.
                GitTestRepo.Write(p, "old.log/x.txt", "x");
                File.SetUnixFileMode(Path.Combine(p, "old.log"), UnixFileMode.None);
            }
            File.SetUnixFileMode(file, UnixFileMode.None);
        });
        Assert.Equal([path], Of(work, FindingKind.Unreadable));
        Assert.Equal(kind == "pipe and repository" ? ["nested"] : [], work.Findings.Where(f => f.Kind == FindingKind.NestedRepository).SelectMany(f => f.Paths.Take(1)));
        Assert.Equal(["README.md", "a.txt"], work.Changes.Select(c => c.Path).Order(StringComparer.Ordinal));
        Assert.Equal(work.Oid, (await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("task-k3f9"), Ct)).Oid);
        Assert.True(Posix.Exists(Path.Combine((await repo.Worktrees.RemoveAsync(Name, Ct)).QuarantinedAs!, path)));
    }

    private static bool CanReadEverything(GitTestRepo repo)
    {
        var file = Path.Combine(repo.Top, "closed");
        File.WriteAllText(file, "x");
        File.SetUnixFileMode(file, UnixFileMode.None);
        try
        {
            File.ReadAllText(file);
            return true;
        }
        catch (UnauthorizedAccessException)
        {
            return false;
        }
    }

    [Fact]
    public async Task Files_hidden_by_an_ignore_rule_of_the_agent_are_reported()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (_, work) = await repo.WorkAsync("task-k3f9", p =>
        {
            GitTestRepo.Write(p, ".gitignore", "*.log\nresult/\n");
            GitTestRepo.Write(p, "result/r.txt", "r");
            GitTestRepo.Write(p, "old.log", "ignored before");
        });
        Assert.Equal(["result/"], Of(work, FindingKind.NewlyIgnored));
    }

    [Theory]
    [InlineData("true")]
    [InlineData("input")]
    [InlineData("false")]
    public async Task Line_ends_follow_the_users_setting(string setting)
    {
        using var repo = new GitTestRepo();
        repo.Run("config", "core.autocrlf", setting);
        repo.Run("rm", "-rq", "--cached", ".");
        repo.Run("reset", "-q", "--hard");
        await repo.OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p =>
        {
            Assert.Equal(setting == "true" ? "hello\r\n" : "hello\n", File.ReadAllText(Path.Combine(p, "README.md")));
            GitTestRepo.Write(p, "dos.txt", "a\r\nb\r\n");
        });
        Assert.Equal(["dos.txt"], work.Changes.Select(c => c.Path));
        Assert.Equal(setting == "false" ? "6" : "4", repo.Run("cat-file", "-s", work.Oid + ":dos.txt"));
        Assert.Equal("", repo.RunIn(worktree.Path, "status", "--porcelain"));
    }

    [Fact]
    public async Task Global_ignore_file_and_repository_exclude_count()
    {
        using var repo = new GitTestRepo();
        GitTestRepo.Write(repo.Home, ".config/git/ignore", "*.swp\n");
        File.AppendAllText(Path.Combine(repo.Root, ".git/info/exclude"), "private/\n");
        await repo.OpenAsync();
        var (_, work) = await repo.WorkAsync("task-k3f9", p =>
        {
            GitTestRepo.Write(p, "a.swp", "s");
            GitTestRepo.Write(p, "private/x", "x");
            GitTestRepo.Write(p, "b.txt", "b");
        });
        Assert.Equal(["b.txt"], work.Changes.Select(c => c.Path));
    }

    [Fact]
    public async Task Global_and_repository_attributes_decide_about_line_ends()
    {
        using var repo = new GitTestRepo();
        GitTestRepo.Write(repo.Home, "attributes", "*.bat text eol=crlf\n");
        repo.Run("config", "--global", "core.attributesFile", "~/attributes");
        GitTestRepo.Write(repo.Root, ".git/info/attributes", "*.raw -text\n");
        repo.Run("config", "core.autocrlf", "input");
        repo.Write("a.bat", "x\r\n");
        repo.CommitAll("bat");
        await repo.OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p =>
        {
            Assert.Equal("x\r\n", File.ReadAllText(Path.Combine(p, "a.bat")));
            GitTestRepo.Write(p, "b.raw", "x\r\n");
        });
        Assert.Equal("3", repo.Run("cat-file", "-s", work.Oid + ":b.raw"));
        Assert.Equal("2", repo.Run("cat-file", "-s", work.Oid + ":a.bat"));
        Assert.Equal("", repo.RunIn(worktree.Path, "status", "--porcelain"));
    }

    [Fact]
    public async Task File_mode_off_keeps_the_recorded_bits()
    {
        using var repo = new GitTestRepo();
        repo.Run("config", "core.filemode", "false");
        await repo.OpenAsync();
        var (_, work) = await repo.WorkAsync("task-k3f9", p => File.SetUnixFileMode(Path.Combine(p, "README.md"), (UnixFileMode)0b111_101_101));
        Assert.True(work.IsNoOp);
    }

    private static IEnumerable<string> Of(Work work, FindingKind kind) => work.Findings.Where(f => f.Kind == kind).SelectMany(f => f.Paths).Order(StringComparer.Ordinal);
}
